// Command netstack is a peer that is no Linux, for the end-to-end tests: a TCP
// relay from the kernel's stack to gVisor's. It listens on addresses of its
// network namespace, usually on loopback; for each connection that it accepts
// it opens one through gVisor's stack, which has the interface's addresses to
// itself (the kernel must have none there). Bytes and the ends of streams go
// both ways. So any program becomes a peer with gVisor's TCP, timers and all.
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
		return errors.New("--address, --listen and --to are needed, and nothing but options; see --help")
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

// relay says from where to where connections are relayed.
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
	// A direction that fails takes the other with it; one that ends does not.
	for range cap(ends) {
		if err := <-ends; err != nil {
			return err
		}
	}
	return nil
}

// pass copies one direction, with its end.
func pass(to interface {
	io.Writer
	CloseWrite() error
}, from io.Reader,
) error {
	// Hidden, so that nothing but read and write is used.
	if _, err := io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from}); err != nil {
		return err
	}
	return to.CloseWrite()
}
