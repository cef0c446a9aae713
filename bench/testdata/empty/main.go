// SPDX-License-Identifier: Apache-2.0

// Command empty shows the minimum that a script in Go costs: the runtime's start
// and end.
package main

func main() {}
