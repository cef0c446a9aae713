// SPDX-License-Identifier: Apache-2.0

// Command netstack provides the end-to-end tests with a peer that does not use
// Linux's TCP: it relays TCP connections from the kernel's stack to gVisor's. It
// listens on addresses of its network namespace, usually on loopback. For each
// connection that it accepts it opens one through gVisor's stack, which has the
// interface's addresses to itself (the kernel must have none there). Bytes and
// ends of streams are passed on in both directions. That turns any program into
// a peer with gVisor's TCP, including its timers.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "netstack:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("netstack", flag.ContinueOnError)
	name := flags.String("interface", "eth0", "`INTERFACE` that gVisor's stack uses")
	var addrs []netip.Prefix
	var relays []relay
	flags.Func("address", "`ADDRESS/LENGTH` that gVisor's stack has there (may be given again)", func(s string) error {
		addr, err := netip.ParsePrefix(s)
		addrs = append(addrs, addr)
		return err
	})
	flags.Func("listen", "`ADDRESS:PORT` to listen on by the kernel's stack; a --to follows (may be given again)", func(s string) error {
		relays = append(relays, relay{listen: s})
		return nil
	})
	flags.Func("to", "`ADDRESS:PORT` to connect to by gVisor's stack", func(s string) (err error) {
		if len(relays) == 0 {
			return errors.New("no --listen before it")
		}
		relays[len(relays)-1].to, err = netip.ParseAddrPort(s)
		return err
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	incomplete := func(r relay) bool { return !r.to.IsValid() }
	if len(addrs) == 0 || len(relays) == 0 || slices.ContainsFunc(relays, incomplete) || flags.NArg() > 0 {
		return errors.New("--address, --listen and --to are required, and there are no arguments; see --help")
	}
	s, err := newStack(*name, addrs)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for _, r := range relays {
		l, err := net.Listen("tcp", r.listen)
		if err != nil {
			return err
		}
		go func() { failed <- r.serve(l, s) }()
	}
	return <-failed
}

// relay says between which two addresses connections are relayed.
type relay struct {
	listen string
	to     netip.AddrPort
}

func (r relay) serve(l net.Listener, s *stack.Stack) error {
	for {
		near, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			if err := r.connect(near.(*net.TCPConn), s); err != nil {
				fmt.Fprintf(os.Stderr, "netstack: %s to %s: %v\n", r.listen, r.to, err)
			}
		}()
	}
}

// connect relays one connection until both its directions have ended.
func (r relay) connect(near *net.TCPConn, s *stack.Stack) error {
	defer near.Close()
	far, err := gonet.DialTCP(s, tcpip.FullAddress{
		NIC: nic, Addr: tcpip.AddrFromSlice(r.to.Addr().AsSlice()), Port: r.to.Port(),
	}, protocol(r.to.Addr()))
	if err != nil {
		return err
	}
	defer far.Close()
	ends := make(chan error, 2)
	go func() { ends <- pass(far, near) }()
	go func() { ends <- pass(near, far) }()
	// When one direction fails, the other is closed too; when one ends, it is not.
	for range cap(ends) {
		if err := <-ends; err != nil {
			return err
		}
	}
	return nil
}

// pass copies the bytes of one direction and then its end of stream.
func pass(to interface {
	io.Writer
	CloseWrite() error
}, from io.Reader,
) error {
	// Wrapped, so that io.Copy uses nothing but Read and Write.
	if _, err := io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from}); err != nil {
		return err
	}
	return to.CloseWrite()
}
