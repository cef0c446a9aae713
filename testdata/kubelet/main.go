// SPDX-License-Identifier: Apache-2.0

// Command kubelet is Kubernetes' own kubelet, as its cmd/kubelet starts it. The
// end-to-end test of "make e2e-kubelet" runs it alone, without an API server.
package main

import (
	"context"
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	os.Exit(cli.Run(app.NewKubeletCommand(context.Background())))
}
