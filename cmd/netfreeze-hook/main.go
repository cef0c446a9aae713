// Command netfreeze-hook is the action-script: it does every action, or, under
// the name pre-dump, post-dump, pre-restore or post-resume, those of one script.
package main

import (
	"os"

	"github.com/criu-netfreeze/criu-netfreeze/internal/hook"
)

func main() { os.Exit(hook.Main()) }
