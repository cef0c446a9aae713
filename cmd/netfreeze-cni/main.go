// SPDX-License-Identifier: Apache-2.0

// Command netfreeze-cni is the CNI plugin that freezes pods which are about to
// be restored, before their address goes live.
package main

import "github.com/criu-netfreeze/criu-netfreeze/internal/cni"

func main() { cni.Main() }
