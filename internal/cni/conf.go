// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/expect"
	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
)

// conf is the plugin's part of a network configuration list, with what the
// runtime adds to it.
type conf struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`

	// Pods are patterns of pods, NAMESPACE/NAME, that are always frozen.
	Pods []string `json:"pods"`

	// The addresses that a container is going to get, where the runtime asks
	// for certain ones: by the capability "ips", and by the older convention.
	RuntimeConfig struct {
		IPs []string `json:"ips"`
	} `json:"runtimeConfig"`
	Args struct {
		CNI struct {
			IPs []string `json:"ips"`
		} `json:"cni"`
	} `json:"args"`

	// PrevResult is kept as it came, to be passed on.
	PrevResult json.RawMessage `json:"prevResult"`

	// ValidAttachments are what still exists of the network, for GC.
	ValidAttachments []types.GCAttachment `json:"cni.dev/valid-attachments"`
}

// parseConf reads what the runtime gives on stdin.
func parseConf(stdin []byte) (*conf, error) {
	var c conf
	if err := json.Unmarshal(stdin, &c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "the network configuration cannot be read ["+code.NotByCRIU.String()+"]", err.Error())
	}
	if err := expect.CheckPatterns(c.Pods); err != nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf(`the configuration of %s in network %s: "pods": %v`, program, c.Name, code.Any(err)), "")
	}
	return &c, nil
}

// newcomer puts together what is known about the container.
func newcomer(args *skel.CmdArgs, c *conf) (expect.Newcomer, error) {
	n := expect.Newcomer{Container: identity.Container{ID: args.ContainerID}}
	vars, err := parseArgs(args.Args)
	if err != nil {
		return n, types.NewError(types.ErrInvalidEnvironmentVariables, code.Any(err).Error(), "")
	}
	if namespace, name := vars["K8S_POD_NAMESPACE"], vars["K8S_POD_NAME"]; namespace != "" && name != "" {
		n.Pod = namespace + "/" + name
	}
	ips := append(strings.Split(vars["IP"], ","), c.RuntimeConfig.IPs...)
	for _, ip := range append(ips, c.Args.CNI.IPs...) {
		// What is no address is for the plugin that assigns it to refuse.
		if addr, ok := parseIP(ip); ok {
			n.Addresses = append(n.Addresses, addr)
		}
	}
	assigned, err := resultIPs(c.PrevResult)
	n.Addresses = append(n.Addresses, assigned...)
	return n, err
}

// parseArgs reads CNI_ARGS: KEY=VALUE pairs with semicolons between them.
func parseArgs(args string) (map[string]string, error) {
	vars := map[string]string{}
	for pair := range strings.SplitSeq(args, ";") {
		key, value, ok := strings.Cut(pair, "=")
		if pair == "" {
			continue // nothing at all, or a semicolon at the end
		}
		if !ok || key == "" {
			return nil, code.New(code.NotByCRIU, fmt.Sprintf("CNI_ARGS has %q, which is not KEY=VALUE", pair))
		}
		vars[key] = value
	}
	return vars, nil
}

// parseIP reads an address, with or without the length of its network.
func parseIP(s string) (netip.Addr, bool) {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "/")
	addr, err := netip.ParseAddr(s)
	return addr.Unmap().WithZone(""), err == nil
}

// resultIPs returns the addresses that the plugins before this one assigned. The
// form of that list has been the same since version 0.3.0 of the specification.
func resultIPs(prev json.RawMessage) ([]netip.Addr, error) {
	if !present(prev) {
		return nil, nil
	}
	var result struct {
		IPs []struct {
			Address string `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(prev, &result); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "prevResult cannot be read ["+code.NotByCRIU.String()+"]", err.Error())
	}
	var addrs []netip.Addr
	for _, ip := range result.IPs {
		addr, ok := parseIP(ip.Address)
		if !ok {
			return nil, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("prevResult has the address %q [%s]", ip.Address, code.NotByCRIU), "")
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// present reports whether there is a JSON value other than null.
func present(v json.RawMessage) bool { return len(v) > 0 && string(v) != "null" }
