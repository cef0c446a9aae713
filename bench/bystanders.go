// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// frozenCount is how many namespaces are frozen while traffic is measured.
const frozenCount = 100

// window is how long each sample of traffic takes.
const window = 500 * time.Millisecond

// bystanders measures what a freeze costs those that are not frozen.
func (b *bench) bystanders() error {
	return errors.Join(b.bystandersOfFreeze(), b.bystandersOfRules())
}

// traffic is a pair of groups, for bulk transfer and for request and reply.
type traffic struct{ bulk, requests *Group }

func newTraffic(name, title, about string) traffic {
	return traffic{
		&Group{Name: name + "-bulk", Title: title + ": bulk", Unit: "MB/s", About: about},
		&Group{Name: name + "-requests", Title: title + ": request and reply", Unit: "1/s", About: about},
	}
}

// measure adds a sample to both groups, for traffic from one namespace to another.
func (t traffic) measure(name string, from, to *netNS) error {
	bytes, err := transfer(from, to, bulk)
	if err != nil {
		return err
	}
	t.bulk.add(name, bytes/1e6)
	bytes, err = transfer(from, to, requestReply)
	if err != nil {
		return err
	}
	t.requests.add(name, bytes/recordSize)
	return nil
}

func (t traffic) finish(b *bench, reference string) {
	for _, g := range []*Group{t.bulk, t.requests} {
		g.summarize(reference)
		b.results.add(g)
	}
}

// bystandersOfFreeze measures the host's own traffic while a hundred namespaces
// are frozen, and while none is.
func (b *bench) bystandersOfFreeze() error {
	const thawed = "none of 100 namespaces frozen"
	const frozen = "100 namespaces frozen"
	own, err := hostNetNS()
	if err != nil {
		return err
	}
	peer, err := b.newNetNS("peer")
	if err != nil {
		return err
	}
	defer own.remove()
	defer peer.remove()
	if err := join(own, peer); err != nil {
		return err
	}
	var others []*netNS
	defer func() {
		for _, s := range others {
			s.remove()
		}
	}()
	for range frozenCount {
		s, err := b.newNetNS("other")
		if err != nil {
			return err
		}
		others = append(others, s)
	}
	t := newTraffic("bystanders", "The host's traffic while namespaces are frozen",
		"From the host's namespace over a veth pair; the ratio is to the same traffic with nothing frozen.")
	for round := range b.rounds {
		progress("bystanders: 100 frozen namespaces, round %d of %d", round+1, b.rounds)
		if err := t.measure(thawed, own, peer); err != nil {
			return err
		}
		if err := each(others, "freeze"); err != nil {
			return err
		}
		if err := t.measure(frozen, own, peer); err != nil {
			return err
		}
		if err := each(others, "thaw"); err != nil {
			return err
		}
	}
	t.finish(b, thawed)
	return nil
}

// each runs a netfreeze command for all the namespaces, several at a time: most
// of the time is spent waiting for the kernel.
func each(spaces []*netNS, verb string) error {
	const parallel = 10
	errs := make([]error, len(spaces))
	free := make(chan bool, parallel)
	var all sync.WaitGroup
	for i, s := range spaces {
		free <- true
		all.Go(func() {
			_, errs[i] = command(netfreeze, verb, s.name)
			<-free
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// ruleset is a set of rules that do not match the traffic that is measured; put
// adds them to a namespace and returns a function that removes them.
type ruleset struct {
	name string
	put  func(*netNS) (remove func() error, err error)
}

func rulesets() []ruleset {
	return []ruleset{
		{"no rules", func(*netNS) (func() error, error) { return func() error { return nil }, nil }},
		{"unarmed, nftables", unarmed(backend.NFTables)},
		{"unarmed, iptables-nft", unarmed(backend.IPTablesNFT)},
		{"unarmed, iptables-legacy", unarmed(backend.IPTablesLegacy)},
		{"armed for 100 others, nftables", armed(backend.NFTables)},
	}
}

func unarmed(k backend.Kind) func(*netNS) (func() error, error) {
	return func(s *netNS) (func() error, error) {
		ns, err := s.Isolate()
		if err != nil {
			return nil, err
		}
		f, err := rules.Open(ns, k)
		if err != nil {
			return nil, err
		}
		return func() error { return errors.Join(f.Thaw(), f.Close()) }, f.Prepare(0)
	}
}

func armed(k backend.Kind) func(*netNS) (func() error, error) {
	return func(s *netNS) (func() error, error) {
		f, err := rules.OpenConns(s.Namespace, k, "bench")
		if err != nil {
			return nil, err
		}
		var conns []tcp.Tuple
		for i := range 100 {
			conns = append(conns, tcp.Tuple{
				Local:  netip.MustParseAddrPort(fmt.Sprintf("%s:%d", appSide[0], 100)),
				Remote: netip.MustParseAddrPort(fmt.Sprintf("%s:%d", peerSide[0], 1000+i)),
			})
		}
		return func() error { return errors.Join(f.Thaw(), f.Close()) }, f.Freeze(conns, time.Hour)
	}
}

// bystandersOfRules measures a running container's traffic with and without our
// rules in its namespace. (Rules that freeze the whole namespace leave no traffic
// to measure.)
func (b *bench) bystandersOfRules() error {
	app, err := b.newNetNS("app")
	if err != nil {
		return err
	}
	defer app.remove()
	peer, err := b.newNetNS("peer")
	if err != nil {
		return err
	}
	defer peer.remove()
	if err := join(app, peer); err != nil {
		return err
	}
	t := newTraffic("rules", "A container's traffic with our rules in place",
		"Over a veth pair; the ratio is to the same traffic without rules.")
	all := rulesets()
	for round := range b.rounds {
		progress("bystanders: rule sets, round %d of %d", round+1, b.rounds)
		for _, i := range shuffledOrder(len(all), round) {
			remove, err := all[i].put(app)
			if err != nil {
				return fmt.Errorf("%s: %w", all[i].name, err)
			}
			if err := errors.Join(t.measure(all[i].name, app, peer), remove()); err != nil {
				return fmt.Errorf("%s: %w", all[i].name, err)
			}
		}
	}
	t.finish(b, all[0].name)
	return nil
}

// transfer connects the namespaces, calls speak with both ends of the connection,
// and returns how many bytes per second got through.
func transfer(from, to *netNS, speak func(client, server net.Conn, until time.Time) (int, error)) (float64, error) {
	var l net.Listener
	err := to.Do(func() (err error) {
		l, err = net.Listen("tcp4", peerSide[0]+":0")
		return err
	})
	if err != nil {
		return 0, err
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	var client net.Conn
	err = from.Do(func() (err error) {
		client, err = net.DialTimeout("tcp4", l.Addr().String(), patience)
		return err
	})
	if err != nil {
		return 0, err
	}
	defer client.Close()
	server := <-accepted
	if server == nil {
		return 0, errors.New("the connection was not accepted")
	}
	defer server.Close()
	began := time.Now()
	n, err := speak(client, server, began.Add(window))
	return float64(n) / time.Since(began).Seconds(), err
}

// bulk sends as much as it can until the given time, and returns how many bytes
// have arrived.
func bulk(client, server net.Conn, until time.Time) (int, error) {
	go func() {
		buf := make([]byte, 256<<10)
		for time.Now().Before(until) {
			if _, err := client.Write(buf); err != nil {
				break
			}
		}
		_ = client.(*net.TCPConn).CloseWrite()
	}()
	n, buf := 0, make([]byte, 256<<10)
	for {
		got, err := server.Read(buf)
		n += got
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// requestReply repeatedly sends a record and waits for it to come back, until the
// given time. It returns how many bytes have come back.
func requestReply(client, server net.Conn, until time.Time) (int, error) {
	go func() {
		buf := make([]byte, recordSize)
		for {
			if _, err := io.ReadFull(server, buf); err != nil {
				return
			}
			if _, err := server.Write(buf); err != nil {
				return
			}
		}
	}()
	n, buf := 0, make([]byte, recordSize)
	for time.Now().Before(until) {
		if _, err := client.Write(buf); err != nil {
			return n, err
		}
		got, err := io.ReadFull(client, buf)
		n += got
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
