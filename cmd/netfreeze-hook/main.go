// SPDX-License-Identifier: Apache-2.0

// Command netfreeze-hook is the action-script, which CRIU executes. Under its own name
// it does every action; under the name pre-dump, post-dump, pre-restore or post-resume
// it does that script's.
package main

import (
	"os"

	"github.com/criu-netfreeze/criu-netfreeze/internal/hook"
	_ "github.com/criu-netfreeze/criu-netfreeze/internal/hook/early" // the linker's -E lets the program begin there
)

func main() { os.Exit(hook.Main()) }
