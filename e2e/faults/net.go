// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	goruntime "runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// within calls a function on a thread that has entered a network namespace, "" for
// the lab's own.
func within(name string, do func() error) error {
	if name == "" {
		return do()
	}
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		goruntime.LockOSThread()
		if unix.Gettid() == os.Getpid() { // the main thread never ends
			done <- within(name, do)
			goruntime.UnlockOSThread()
			return
		}
		f, err := os.Open("/run/netns/" + name)
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			_ = f.Close()
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

// runIn runs a program of the lab to its end, in a network namespace.
func runIn(netns, stdin string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	err := within(netns, cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(out.String()))
	}
	return out.String(), err
}

// commandPatience is how long any program may run but CRIU.
const commandPatience = 20 * time.Second

func ip(netns string, lines ...string) error {
	_, err := runIn(netns, strings.Join(lines, "\n")+"\n", "ip", "-batch", "-")
	return err
}

// The addresses of the two ends of a link; every pair of namespaces has the same.
const (
	app4, peer4 = "10.66.0.1", "10.66.0.2"
	app6, peer6 = "fd66::1", "fd66::2"
	appMAC      = "02:00:00:00:66:01"
	peerMAC     = "02:00:00:00:66:02"
	port        = "7000"
)

// newPair makes two namespaces that are connected. Neighbours are entered by hand, so
// that no run has to wait for their discovery.
func newPair(app, peer string) error {
	for _, name := range []string{app, peer} {
		if _, err := runIn("", "", "ip", "netns", "add", name); err != nil {
			return err
		}
	}
	end := func(mac, v4, v6, otherMAC, other4, other6 string) []string {
		return []string{
			"link set lo up", "link set eth0 addrgenmode none", "link set eth0 address " + mac,
			"addr add " + v4 + "/24 dev eth0", "addr add " + v6 + "/64 dev eth0 nodad", "link set eth0 up",
			"neigh replace " + other4 + " lladdr " + otherMAC + " dev eth0 nud permanent",
			"neigh replace " + other6 + " lladdr " + otherMAC + " dev eth0 nud permanent",
		}
	}
	if err := ip(app, "link add eth0 type veth peer name eth0 netns "+peer); err != nil {
		return err
	}
	if err := ip(app, end(appMAC, app4, app6, peerMAC, peer4, peer6)...); err != nil {
		return err
	}
	return ip(peer, end(peerMAC, peer4, peer6, appMAC, app4, app6)...)
}

func removePair(app, peer string) error {
	_, _ = runIn("", "", "ip", "-n", app, "link", "del", "eth0")
	var failed error
	for _, name := range []string{app, peer} {
		if _, err := runIn("", "", "ip", "netns", "del", name); err != nil {
			failed = err
		}
	}
	return failed
}

// What iptables-nft leaves behind whoever uses it: empty chains, and tables that have
// no other ones.
var (
	emptyChain = regexp.MustCompile(`\tchain [A-Z]+ \{\n\t\ttype filter hook [a-z]+ priority [a-z]+; policy accept;\n\t\}\n\n?`)
	emptyTable = regexp.MustCompile(`table ip6? (filter|raw|mangle) \{\n\}\n`)
)

// ruleset returns all rules of a namespace that can drop a packet.
func ruleset(netns string) (string, error) {
	text, err := runIn(netns, "", "nft", "list", "ruleset")
	if err != nil {
		return "", err
	}
	text = emptyTable.ReplaceAllString(emptyChain.ReplaceAllString(text, ""), "")
	for _, tool := range []string{"iptables-legacy", "ip6tables-legacy"} {
		for _, table := range []string{"raw", "filter"} {
			// By its path: a fault may have put another program before it.
			rules, err := runIn(netns, "", "/usr/sbin/"+tool, "--wait", "-t", table, "-S")
			if err != nil {
				return "", err
			}
			text += rules
		}
	}
	return text, nil
}

// answers reports whether the app's side answers to a ping from its peer: whether the
// network is open, also where no task runs.
func answers(peer string) bool {
	err := within(peer, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 250_000}); err != nil {
			return err
		}
		echo := []byte{8, 0, 0, 0, 0x66, 0x01, 0, 1}
		sum := ^(uint32(8)<<8 + 0x6601 + 1)
		echo[2], echo[3] = byte(sum>>8), byte(sum)
		if err := unix.Sendto(fd, echo, 0, &unix.SockaddrInet4{Addr: [4]byte{10, 66, 0, 1}}); err != nil {
			return err
		}
		buf := make([]byte, 200)
		for deadline := time.Now().Add(250 * time.Millisecond); time.Now().Before(deadline); {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return err
			}
			if n >= 28 && buf[20] == 0 && buf[24] == 0x66 { // an echo reply to us
				return nil
			}
		}
		return os.ErrDeadlineExceeded
	})
	return err == nil
}
