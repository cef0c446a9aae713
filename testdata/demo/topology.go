// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
)

// The network: a switch, and two hosts that are connected to it.
const (
	switchNetns = "switch"
	device      = "eth0" // each host's interface
	broadcast   = "10.88.0.255"
)

// host is a MAC address and two IP addresses. The namespace that has them may
// change.
type host struct {
	netns, mac, v4, v6 string
	port               string // the switch's end of its link
}

func newHost(name string, n int) *host {
	return &host{
		netns: name, port: "to-" + name, mac: fmt.Sprintf("02:00:00:00:00:%02x", n),
		v4: fmt.Sprintf("10.88.0.%d", n), v6: fmt.Sprintf("fd88::%x", n),
	}
}

// sockets returns the host's two addresses with the server's port.
func (h *host) sockets() [2]string { return [2]string{h.v4 + ":7000", "[" + h.v6 + "]:7000"} }

func newSwitch() error {
	if err := newNetns(switchNetns); err != nil {
		return err
	}
	// No spanning tree and no snooping: a port forwards from its first moment.
	return ip(switchNetns, "link add br0 type bridge stp_state 0 mcast_snooping 0", "link set br0 up", "addr add 10.88.0.254/24 dev br0")
}

func newNetns(name string) error {
	if _, err := command("", "ip", "netns", "add", name); err != nil {
		return err
	}
	return ip(name, "link set lo up")
}

// removeNetns removes a namespace, if it is there.
func removeNetns(name string) error {
	if _, err := os.Stat(netnsPath(name)); os.IsNotExist(err) {
		return nil
	}
	_, err := command("", "ip", "netns", "del", name)
	return err
}

// connect gives a namespace the host's interface, MAC address and IP addresses,
// usable at once: no duplicate address detection, no link-local address.
func (h *host) connect() error {
	return errors.Join(
		ip(switchNetns,
			fmt.Sprintf("link add %s type veth peer name %s address %s netns %s", h.port, device, h.mac, h.netns),
			fmt.Sprintf("link set %s master br0 addrgenmode none up", h.port)),
		ip(h.netns,
			fmt.Sprintf("link set %s addrgenmode none", device),
			fmt.Sprintf("addr add %s/24 dev %s", h.v4, device),
			fmt.Sprintf("addr add %s/64 dev %s nodad", h.v6, device),
			fmt.Sprintf("link set %s up", device)))
}

// disconnect removes the host's interface.
func (h *host) disconnect() error { return ip(switchNetns, "link del "+h.port) }

// ip runs a batch of ip(8) commands in a namespace.
func ip(netns string, lines ...string) error {
	_, err := command(strings.Join(lines, "\n")+"\n", "ip", "-n", netns, "-batch", "-")
	return err
}

// command runs a program to its end and returns its output, standard error
// included.
func command(stdin, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	output := strings.TrimSpace(string(out))
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, output)
	}
	return output, err
}

func netnsPath(name string) string { return filepath.Join("/run/netns", name) }

// within calls a function on a thread that has entered a network namespace, and
// changes nothing else: a program that "ip netns exec" starts also has a mount
// namespace of its own, and CRIU would not dump it.
func within(name string, do func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine that is locked to it,
		// so that nothing else ever runs in the other namespace.
		runtime.LockOSThread()
		handle, err := netns.GetFromPath(netnsPath(name))
		if err == nil {
			err = errors.Join(netns.Set(handle), handle.Close())
		}
		if err != nil {
			done <- fmt.Errorf("enter the network namespace %s: %w", name, err)
			return
		}
		done <- do()
	}()
	return <-done
}
