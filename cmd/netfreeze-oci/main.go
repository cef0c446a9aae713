// SPDX-License-Identifier: Apache-2.0

// Command netfreeze-oci is the OCI createRuntime hook that freezes containers
// which are about to be restored.
package main

import (
	"os"

	"github.com/criu-netfreeze/criu-netfreeze/internal/ocihook"
)

func main() { os.Exit(ocihook.Main(os.Args[1:], os.Stdin, os.Stderr)) }
