// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// iptConns is the iptables ConnFreezer. It has two rules for each connection, which
// the kernel tries one after the other for every packet, so it suits some hundreds
// of connections. It sees arriving segments before the kernel undoes address
// translation, and therefore does not recognise those of a connection that this
// host itself translates. It always recognises leaving segments, which are the
// ones that matter to the peer.
type iptConns struct {
	*ipt
	chains iptChains
}

func openIPTConns(ns *netns.Namespace, k backend.Kind, owner string) (ConnFreezer, error) {
	i, err := openTools(ns, k)
	if err != nil {
		return nil, err
	}
	return &iptConns{i, ownerChains(owner)}, nil
}

func (f *iptConns) Backend() backend.Kind { return f.kind }

func (f *iptConns) Close() error { return nil }

func (f *iptConns) Freeze(conns []tcp.Tuple, ttl time.Duration) error {
	if err := CheckTTL(ttl); err != nil {
		return err
	}
	before, _, err := f.Frozen()
	if err != nil {
		return err
	}
	all, err := MergeConns(before, conns)
	if err != nil {
		return err
	}
	err = f.put(fmt.Sprintf("freeze %d connections", len(all)), all, time.Now().Add(ttl), unsealed)
	if err != nil && len(before) == 0 {
		return errors.Join(err, f.Thaw()) // half a freeze is none
	}
	// Even after an error, what was frozen before is: each IP family has either its
	// old rules or its new ones.
	return err
}

func (f *iptConns) Seal(pass uint32) error {
	all, end, err := f.frozen(time.Now())
	if err != nil || len(all) == 0 {
		return err
	}
	return f.put("seal the frozen connections", all, end, sealedBut(pass))
}

// put replaces the rules of both IP families. What passes is up to s.
func (f *iptConns) put(what string, conns []tcp.Tuple, end time.Time, s seal) error {
	until := dropUntil(end)
	return f.each(what, func(ctx context.Context, t *iptTool) error {
		in, out := s.passIn(false), s.passOut(false)
		for _, conn := range conns {
			if conn.Is4() == t.ipv6() {
				continue
			}
			in = append(in, segment(conn.Remote, conn.Local)+until)
			out = append(out, segment(conn.Local, conn.Remote)+until)
		}
		return f.chains.put(ctx, t, in, out)
	})
}

func (f *iptConns) Thaw() error { return f.each("thaw connections", f.chains.remove) }

func (f *iptConns) Frozen() ([]tcp.Tuple, time.Duration, error) {
	now := time.Now()
	all, end, err := f.frozen(now)
	if err != nil || len(all) == 0 {
		return nil, 0, err
	}
	return all, end.Sub(now), nil
}

// frozen returns the frozen connections, and when the kernel ends the first of
// their freezes.
func (f *iptConns) frozen(now time.Time) ([]tcp.Tuple, time.Time, error) {
	var found [2][]tcp.Tuple
	var ends [2]time.Time
	err := f.each("read the frozen connections", func(_ context.Context, t *iptTool) error {
		n := 0
		if t.ipv6() {
			n = 1
		}
		_, out, _, err := f.chains.list(t)
		if err != nil {
			return err
		}
		for _, rule := range out {
			match, end, ok := dropsUntil(rule, now)
			if !ok {
				continue
			}
			conn, err := parseSegment(match)
			if err != nil {
				return err
			}
			found[n], ends[n] = append(found[n], conn), end
		}
		return nil
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	all := slices.Concat(found[0], found[1])
	end := ends[0]
	if end.IsZero() || !ends[1].IsZero() && ends[1].Before(end) {
		end = ends[1]
	}
	return all, end, nil
}

// segment matches TCP segments from one end of a connection to the other.
func segment(from, to netip.AddrPort) string {
	return fmt.Sprintf("-s %s -d %s -p tcp -m tcp --sport %d --dport %d ", from.Addr(), to.Addr(), from.Port(), to.Port())
}

// parseSegment reads what iptables -S prints for segment, which is the same with a
// prefix length after each address.
func parseSegment(match string) (tcp.Tuple, error) {
	var src, dst netip.Addr
	var sport, dport uint16
	words := strings.Fields(match)
	for len(words) >= 2 {
		var err error
		switch words[0] {
		case "-s":
			src, err = parseAddr(words[1])
		case "-d":
			dst, err = parseAddr(words[1])
		case "--sport":
			sport, err = parsePort(words[1])
		case "--dport":
			dport, err = parsePort(words[1])
		}
		if err != nil {
			return tcp.Tuple{}, fmt.Errorf("read the connection in our rule %q: %w", match, err)
		}
		words = words[2:]
	}
	if !src.IsValid() || !dst.IsValid() {
		return tcp.Tuple{}, code.New(code.FilterBusy, fmt.Sprintf("read the connection in our rule %q: an address is missing", match))
	}
	return tcp.Tuple{Local: netip.AddrPortFrom(src, sport), Remote: netip.AddrPortFrom(dst, dport)}, nil
}

func parseAddr(s string) (netip.Addr, error) {
	addr, _, _ := strings.Cut(s, "/")
	return netip.ParseAddr(addr)
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err
}
