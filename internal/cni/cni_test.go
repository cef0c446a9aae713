// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/criu-netfreeze/criu-netfreeze/internal/expect"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// pluginVar makes this program the plugin.
const pluginVar = "NETFREEZE_TEST_CNI_PLUGIN"

func TestMain(m *testing.M) {
	if os.Getenv(pluginVar) != "" {
		Main()
		os.Exit(0)
	}
	nstest.Main(m)
}

// call is one call of the plugin by a runtime.
type call struct {
	command, args, ifname string
	netns                 *netns.Namespace
	path                  string // instead of netns
	conf                  string // members of the configuration after cniVersion and name
	stdin                 string // instead of conf
}

// do returns what the plugin prints, and its error if it fails.
func (c call) do(t *testing.T) (string, *types.Error) {
	t.Helper()
	if c.netns != nil {
		c.path = nsPath(c.netns)
	}
	if c.ifname == "" {
		c.ifname = "eth0"
	}
	if c.stdin == "" {
		c.stdin = `{"cniVersion": "1.1.0", "name": "net1", "type": "netfreeze-cni"` + c.conf + `}`
	}
	cmd := exec.Command("/proc/self/exe")
	// The race detector waits a second for other threads at every exit.
	cmd.Env = append(os.Environ(), pluginVar+"=1", "GORACE=atexit_sleep_ms=0", "CNI_COMMAND="+c.command, "CNI_CONTAINERID=box",
		"CNI_NETNS="+c.path, "CNI_IFNAME="+c.ifname, "CNI_PATH=/opt/cni/bin", "CNI_ARGS="+c.args)
	cmd.Stdin = strings.NewReader(c.stdin)
	var out bytes.Buffer
	cmd.Stdout = &out
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return out.String(), nil
	case !errors.As(err, &exit):
		t.Fatal(err)
	}
	var e types.Error
	if err := json.Unmarshal(out.Bytes(), &e); err != nil {
		t.Fatalf("failed without an error in JSON: %s", out.String())
	}
	return out.String(), &e
}

func (c call) must(t *testing.T) string {
	t.Helper()
	out, err := c.do(t)
	if err != nil {
		t.Fatalf("%s: %v", c.command, err)
	}
	return out
}

func nsPath(ns *netns.Namespace) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.FD()) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func frozen(t *testing.T, ns *netns.Namespace) bool {
	t.Helper()
	st, err := rules.Look(ns)
	must(t, err)
	return st.Frozen
}

// records returns how many there are of a namespace.
func records(t *testing.T, ns *netns.Namespace) int {
	t.Helper()
	of, err := record.Of(ns)
	must(t, err)
	return len(of)
}

// prev is a result with members and blanks that no library would keep.
const prev = `{ "cniVersion":"1.1.0",  "ips":[{"address":"192.0.2.7/24","x":1}], "unknown": {"a": [1,  2]} }`

// TestUntouched has pods that are none of our business leave no trace.
func TestUntouched(t *testing.T) {
	ns := nstest.New(t)
	for name, c := range map[string]struct {
		call call
		want string
	}{
		"chained":   {call{args: "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;IgnoreUnknown=1", conf: `, "pods": ["shop/db-*"], "prevResult": ` + prev}, prev},
		"first":     {call{}, `{"cniVersion":"1.1.0"}`},
		"null":      {call{conf: `, "prevResult": null`}, `{"cniVersion":"1.1.0"}`},
		"no pod":    {call{conf: `, "pods": ["*/*"]`}, `{"cniVersion":"1.1.0"}`},
		"half":      {call{args: "K8S_POD_NAME=web", conf: `, "pods": ["*/*"]`}, `{"cniVersion":"1.1.0"}`},
		"old":       {call{stdin: `{"cniVersion": "0.3.1", "name": "n"}`}, `{"cniVersion":"0.3.1"}`},
		"addresses": {call{args: "IP=192.0.2.9", conf: `, "runtimeConfig": {"ips": ["192.0.2.9/24", "junk"]}`}, `{"cniVersion":"1.1.0"}`},
	} {
		c.call.command, c.call.netns = "ADD", ns
		if got := c.call.must(t); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
	if _, err := os.Stat(record.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state directory was made: %v", err)
	}
	if frozen(t, ns) {
		t.Error("frozen")
	}
}

// TestMatched freezes by each way to match.
func TestMatched(t *testing.T) {
	pod, err := expect.Pod("shop/db-0")
	must(t, err)
	must(t, pod.Expect(time.Minute))
	for _, a := range []string{"192.0.2.7", "2001:db8::7"} {
		addr, err := expect.Address(netip.MustParseAddr(a))
		must(t, err)
		must(t, addr.Expect(time.Minute))
		defer addr.Cancel()
	}
	defer pod.Cancel()
	for name, c := range map[string]call{
		"pattern":           {args: "K8S_POD_NAME=web-1;K8S_POD_NAMESPACE=shop;", conf: `, "pods": ["a/b", "sh?p/web-*"]`},
		"pod":               {args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db-0"},
		"result":            {conf: `, "prevResult": ` + prev},
		"CNI_ARGS":          {args: "IP=192.0.2.1/24,192.0.2.7/24"},
		"capability":        {conf: `, "runtimeConfig": {"ips": ["2001:db8::7/64"]}`},
		"args":              {conf: `, "args": {"cni": {"ips": ["192.0.2.7"]}}`},
		"IPv4 written long": {conf: `, "runtimeConfig": {"ips": ["::ffff:192.0.2.7"]}`},
	} {
		ns := nstest.New(t)
		c.command, c.netns = "ADD", ns
		out := c.must(t)
		if strings.Contains(c.conf, "prevResult") && out != prev {
			t.Errorf("%s: the result is %s, want %s", name, out, prev)
		}
		if !frozen(t, ns) || records(t, ns) != 1 {
			t.Errorf("%s: not frozen, or without one record", name)
		}
		c.must(t) // as runtimes may do
		check := call{command: "CHECK", netns: ns}
		check.must(t)
		if records(t, ns) != 1 {
			t.Errorf("%s: %d records after the second ADD", name, records(t, ns))
		}
		isolated, err := ns.Isolate()
		must(t, err)
		must(t, rules.ThawAll(isolated))
		if _, err := check.do(t); err == nil || err.Code != errNotFrozen {
			t.Errorf("%s: CHECK of a freeze that has gone: %v", name, err)
		}
		call{command: "DEL", netns: ns}.must(t)
		check.must(t) // nothing is known of it any more
		call{command: "DEL", path: "/run/netns/gone"}.must(t)
		call{command: "DEL"}.must(t)
		if records(t, ns) != 0 {
			t.Errorf("%s: DEL left a record", name)
		}
	}
	all, err := expect.Expectations()
	must(t, err)
	for i := range all {
		if !strings.HasPrefix(all[i].By, "netfreeze-cni, net:[") {
			t.Errorf("%s was met by %q", &all[i], all[i].By)
		}
	}
}

// TestErrors asks for what cannot be done. A pod that matches is never passed on.
func TestErrors(t *testing.T) {
	ns := nstest.New(t)
	const web, match = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web", `, "pods": ["shop/*"]`
	for name, c := range map[string]struct {
		call call
		code uint
		say  string
	}{
		"arguments":      {call{netns: ns, args: "K8S_POD_NAMESPACE"}, types.ErrInvalidEnvironmentVariables, `"K8S_POD_NAMESPACE"`},
		"no JSON":        {call{netns: ns, stdin: "{"}, types.ErrDecodingFailure, ""},
		"wrong type":     {call{netns: ns, conf: `, "pods": 1`}, types.ErrDecodingFailure, ""},
		"pattern":        {call{netns: ns, conf: `, "pods": ["shop"]`}, types.ErrInvalidNetworkConfig, `"shop"`},
		"broken pattern": {call{netns: ns, conf: `, "pods": ["shop/[a"]`}, types.ErrInvalidNetworkConfig, `shop/[a`},
		"result":         {call{netns: ns, conf: `, "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "x"}]}`}, types.ErrDecodingFailure, `"x"`},
		"version":        {call{netns: ns, stdin: `{"cniVersion": "9.0.0", "name": "n"}`}, types.ErrIncompatibleCNIVersion, ""},
		"no namespace":   {call{path: "/run/netns/gone", args: web, conf: match}, errNotFrozen, "/run/netns/gone"},
		"no netns":       {call{path: "/etc/passwd", args: web, conf: match}, errNotFrozen, "not a network namespace"},
		"the host's":     {call{path: "/proc/1/ns/net", args: web, conf: match}, errNotFrozen, "must not be frozen"},
	} {
		c.call.command = "ADD"
		out, err := c.call.do(t)
		if err == nil {
			t.Errorf("%s: no error, but %s", name, out)
		} else if err.Code != c.code || !strings.Contains(out, strings.ReplaceAll(c.say, `"`, `\"`)) {
			t.Errorf("%s: got %s, want code %d and %s", name, out, c.code, c.say)
		}
	}
	if frozen(t, ns) || records(t, ns) > 0 {
		t.Error("something was frozen")
	}
}

// TestGC forgets what is no longer attached to this network, and only that.
func TestGC(t *testing.T) {
	ns := nstest.New(t)
	add := func(ifname, network string) {
		call{
			command: "ADD", netns: ns, ifname: ifname, args: "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b",
			stdin: fmt.Sprintf(`{"cniVersion": "1.1.0", "name": %q, "pods": ["a/b"]}`, network),
		}.must(t)
	}
	add("eth0", "net1")
	add("eth1", "net1")
	add("eth2", "net2")
	call{command: "GC", conf: `, "cni.dev/valid-attachments": [{"containerID": "box", "ifname": "eth0"}]`}.must(t)
	of, err := record.Of(ns)
	must(t, err)
	var left []string
	for _, r := range of {
		left = append(left, r.ID)
	}
	if got := strings.Join(left, " "); got != "cni-box-eth0 cni-box-eth2" {
		t.Errorf("left: %s", got)
	}
	for _, r := range of {
		must(t, r.Remove())
	}
}

func TestStatus(t *testing.T) {
	status := call{command: "STATUS"}
	status.must(t)
	must(t, os.Chmod(record.Dir, 0o755))
	defer os.Chmod(record.Dir, 0o700)
	if out, err := status.do(t); err == nil || err.Code != types.ErrPluginNotAvailable {
		t.Errorf("with a state directory that is not to be trusted: %s", out)
	}
}

func TestVersion(t *testing.T) {
	out := call{command: "VERSION", stdin: "{}"}.must(t)
	for _, v := range []string{`"1.0.0"`, `"1.1.0"`} {
		if !strings.Contains(out, v) {
			t.Errorf("VERSION lacks %s: %s", v, out)
		}
	}
}
