// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
)

func FuzzArgs(f *testing.F) {
	f.Add("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db-0")
	f.Add("IP=192.0.2.1/24,2001:db8::1;")
	f.Add("=;a")
	f.Fuzz(func(t *testing.T, args string) {
		vars, err := parseArgs(args)
		if err != nil {
			return
		}
		for key, value := range vars {
			if key == "" || strings.Contains(key+value, ";") || !strings.Contains(args, key+"="+value) {
				t.Errorf("%q: got %q = %q", args, key, value)
			}
		}
	})
}

func FuzzStdin(f *testing.F) {
	f.Add([]byte(`{"cniVersion": "1.1.0", "name": "n", "pods": ["a/b*"], "prevResult": {"ips": [{"address": "192.0.2.1/24"}]}}`))
	f.Add([]byte(`{"runtimeConfig": {"ips": ["x", "::1"]}, "args": {"cni": {"ips": [""]}}, "prevResult": null}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, stdin []byte) {
		c, err := parseConf(stdin)
		if err != nil {
			return
		}
		n, err := newcomer(&skel.CmdArgs{ContainerID: "box"}, c)
		if err != nil {
			return
		}
		if n.Pod != "" {
			t.Errorf("a pod without arguments: %q", n.Pod)
		}
		for _, a := range n.Addresses {
			if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
				t.Errorf("address %v", a)
			}
		}
	})
}
