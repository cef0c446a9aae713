// SPDX-License-Identifier: Apache-2.0

// Command netfreeze-settler does CRIU's actions: the action-script starts one for each
// CRIU. It is a program of its own because CRIU waits for its start, which takes the
// longer the more is linked.
package main

import (
	"os"

	"github.com/criu-netfreeze/criu-netfreeze/internal/settler"
)

func main() { os.Exit(settler.Main(os.Args)) }
