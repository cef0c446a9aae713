// SPDX-License-Identifier: Apache-2.0

// Package early does the action-script's work before Go's runtime starts, where that
// is possible. The README beside this file says why, and what code in here must not
// do.
//
// A program that is linked with -E for entry begins here; in one that is linked as
// usual this package has no effect. Whatever early does not handle it leaves to the
// program's main function, which can do everything.
//
// Architectures without an entry have this file alone.
package early
