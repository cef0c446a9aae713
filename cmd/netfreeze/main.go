// SPDX-License-Identifier: Apache-2.0

// Command netfreeze shows and ends freezes, installs the action-scripts, and is
// the settler that they start.
package main

import (
	"os"

	"github.com/criu-netfreeze/criu-netfreeze/internal/cli"
)

func main() { os.Exit(cli.Main()) }
