// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// peer is a kind of peer: how its namespace and that of the app are configured, and how
// far it is away.
type peer struct {
	name       string
	sysctls    []string // of the peer's namespace, without the prefix net.ipv4.
	appSysctls []string // of the app's
	congestion string   // "" for the kernel's default
	oneWay     time.Duration
}

// String returns how a line about the peer begins.
func (p peer) String() string {
	if p.name == "" {
		return ""
	}
	return p.name + ": "
}

// smallest are the smallest buffers.
var smallest = []string{"tcp_rmem=4096 4096 4096", "tcp_wmem=4096 4096 4096"}

// peerKinds are the kinds of TestPeers that have Linux's TCP.
var peerKinds = []peer{
	{name: "Linux"},
	{name: "without timestamps", sysctls: []string{"tcp_timestamps=0"}},
	{name: "without SACK", sysctls: []string{"tcp_sack=0"}},
	{name: "windows of 4 KB", sysctls: smallest, appSysctls: smallest},
	{name: "the same without timestamps", sysctls: append(slices.Clone(smallest), "tcp_timestamps=0"), appSysctls: smallest},
	{name: "BBR", congestion: "bbr"},
	{name: "CUBIC", congestion: "cubic"},
	{name: "Reno", congestion: "reno"},
	{name: "50 ms away", oneWay: 50 * time.Millisecond},
}

// newPeerLoad is newLoad for one process and a kind of peer.
func (b *bench) newPeerLoad(connections int, p peer) (l *load, done func(), err error) {
	var made []*netNS
	remove := func() {
		for _, s := range made {
			s.remove()
		}
	}
	defer func() {
		if err != nil {
			remove()
		}
	}()
	for _, role := range []string{"app", "peer", "way"} {
		s, err := b.newNetNS(role)
		if err != nil {
			return nil, nil, err
		}
		made = append(made, s)
	}
	app, far, way := made[0], made[1], made[2]
	unplug := func() {}
	if p.oneWay == 0 {
		err = join(app, far)
	} else {
		wire, joined := joinFar(app, far, way, p.oneWay)
		if err = joined; err == nil {
			unplug = func() { _ = wire.Close() }
		}
	}
	if err == nil {
		err = errors.Join(far.sysctl(p.sysctls), app.sysctl(p.appSysctls))
	}
	for _, addr := range appSide {
		if err == nil && p.congestion != "" {
			// Per route: not every algorithm is allowed as a namespace's default.
			err = far.ip(fmt.Sprintf("route add %s dev eth0 congctl %s", addr, p.congestion))
		}
	}
	if err == nil {
		l, err = startLoad(app, far, shape{1, 1, connections}, appSide)
	}
	if err != nil {
		unplug()
		return nil, nil, err
	}
	return l, func() { l.remove(); unplug(); remove() }, nil
}

// sysctl sets variables below net.ipv4 inside.
func (s *netNS) sysctl(all []string) error {
	for _, v := range all {
		if err := s.Do(func() error {
			_, err := command("sysctl", "-qw", "net.ipv4."+v)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// peers measures the first byte after an outage, for peers of different kinds.
func (b *bench) peers() error {
	const length = 2 * time.Second
	known, err := knownModes()
	if err != nil {
		return err
	}
	algorithms, err := command("sysctl", "-n", "net.ipv4.tcp_available_congestion_control")
	if err != nil {
		return err
	}
	kinds := slices.DeleteFunc(slices.Clone(peerKinds), func(p peer) bool {
		return p.congestion != "" && !slices.Contains(strings.Fields(algorithms), p.congestion)
	})
	progress("peers: %d kinds, all at the same time", len(kinds))
	var cases []*outage
	for _, p := range kinds {
		for _, m := range known {
			cases = append(cases, &outage{length: length, mode: m, peer: p})
		}
	}
	if err := b.runOutages(cases); err != nil {
		return err
	}
	for _, m := range known {
		g := &Group{
			Name: "peers-" + m.name, Title: m.title, Unit: "ms",
			About: fmt.Sprintf("From network-unlock to the first byte that gets through, after an outage of %s.", length),
		}
		for _, o := range cases {
			for _, first := range o.first {
				if o.mode.name == m.name {
					g.add(o.peer.name, float64(first-o.unlock)/1e6)
				}
			}
		}
		g.summarize("")
		b.results.add(g)
	}
	return nil
}
