// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/criuimg"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Report is what is at a path.
type Report struct {
	Path        string        `json:"path"`
	Kind        string        `json:"kind"`
	Checkpoints []*Checkpoint `json:"checkpoints"`
}

// Checkpoint is what one dump has.
type Checkpoint struct {
	Where       string       `json:"where,omitempty"` // within the path; empty if it is the path
	Origin      Origin       `json:"origin"`
	Tasks       []Task       `json:"tasks"`
	Connections []Connection `json:"connections"`
	Listening   []Listener   `json:"listening"`
	Needs       Needs        `json:"needs"`
	// Problems are about what could not be read, and does not keep the rest from being
	// shown.
	Problems []string `json:"problems,omitempty"`
	// Target is what was found in the namespace that was asked about, nil if none was.
	Target *Target `json:"target,omitempty"`
}

// Task is a process.
type Task struct {
	PID     int    `json:"pid"` // in its own pid namespace
	Parent  int    `json:"ppid"`
	Comm    string `json:"comm,omitempty"`
	Threads int    `json:"threads"`
}

// Connection is a TCP connection that the restore rebuilds. Queues are in bytes.
type Connection struct {
	State        string         `json:"state"` // as ss(8) calls it
	Local        netip.AddrPort `json:"local"`
	Remote       netip.AddrPort `json:"remote"`
	SendQueue    int            `json:"send_queue"`    // not acknowledged by the peer, or not sent yet
	Unsent       int            `json:"unsent"`        // of that: not sent yet
	ReceiveQueue int            `json:"receive_queue"` // not read by the application
	MSS          int            `json:"mss"`
	SendScale    int            `json:"send_scale"` // of windows (RFC 7323), in bits
	ReceiveScale int            `json:"receive_scale"`
	Options      []string       `json:"options"`
	Device       string         `json:"device,omitempty"`
	Problem      string         `json:"problem,omitempty"` // why the queues and options are not known
}

// Listener is a socket that takes connections, or datagrams from anybody.
type Listener struct {
	Protocol string         `json:"protocol"` // tcp, udp
	Local    netip.AddrPort `json:"local"`
	Backlog  int            `json:"backlog,omitempty"`
	Device   string         `json:"device,omitempty"`

	v6only, reusePort bool
}

// Needs is what a restore needs.
type Needs struct {
	NetNS          string       `json:"netns"`               // external, dumped or shared
	Key            string       `json:"netns_key,omitempty"` // of an external one
	Addresses      []netip.Addr `json:"addresses"`           // that connections and listening sockets are bound to
	Interfaces     []string     `json:"interfaces,omitempty"`
	TCPEstablished bool         `json:"tcp_established"` // CRIU's option of that name
	Ports          []string     `json:"ports"`           // on which sockets listen, such as tcp/80
}

// NetNS names where a restored tree's network namespace comes from.
var netnsNames = map[criuimg.NetNS]string{criuimg.External: "external", criuimg.Dumped: "dumped", criuimg.Shared: "shared"}

// Read says what is at a path: a directory of CRIU's images or one that has such
// directories, an archive, or an image for a registry, as a directory or an archive. An
// error has a code.
func Read(path string) (*Report, error) {
	found, kind, done, err := find(path)
	defer done()
	if err != nil {
		return nil, code.Any(fmt.Errorf("inspect %s: %w", path, err))
	}
	r := &Report{Path: path, Kind: kind}
	for _, s := range found {
		c, err := s.read()
		if err != nil {
			if s.where != "" {
				err = fmt.Errorf("%s: %w", s.where, err)
			}
			return nil, code.Wrap(code.Images, fmt.Errorf("inspect %s: %w", path, err))
		}
		r.Checkpoints = append(r.Checkpoints, c)
	}
	return r, nil
}

// read reads one checkpoint. An error is about the images without which nothing can be
// said.
func (s source) read() (*Checkpoint, error) {
	cp, err := criuimg.ReadFS(s.images)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{Where: s.where, Connections: []Connection{}, Listening: []Listener{}}
	c.Origin, err = s.origin()
	c.note(err)
	tasks, err := cp.Tasks()
	c.note(err)
	for _, t := range tasks {
		c.Tasks = append(c.Tasks, Task(t))
	}
	socks, err := cp.Sockets()
	if err != nil {
		return nil, err
	}
	for _, sk := range socks {
		switch {
		case sk.Connection:
			c.Connections = append(c.Connections, connection(cp, sk))
		case sk.Listens():
			c.Listening = append(c.Listening, Listener{
				Protocol: protocol(sk.Protocol), Local: sk.Local, Backlog: sk.Backlog, Device: sk.Device,
				v6only: sk.V6Only, reusePort: sk.ReusePort,
			})
		}
	}
	c.needs(cp)
	if closes, err := cp.ClosesTCP(); err == nil && closes {
		c.Problems = append(c.Problems, "the dump was made with tcp-close: its connections are not in the images, and the restore will close them")
	}
	return c, nil
}

// note notes a problem that does not matter for the rest.
func (c *Checkpoint) note(err error) {
	if err == nil {
		return
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range many.Unwrap() {
			c.Problems = append(c.Problems, err.Error())
		}
		return
	}
	c.Problems = append(c.Problems, err.Error())
}

// stateNames are the states of TCP, as ss(8) calls them.
var stateNames = map[int]string{
	tcp.Established: "ESTAB", tcp.SynSent: "SYN-SENT", tcp.SynRecv: "SYN-RECV", tcp.FinWait1: "FIN-WAIT-1",
	tcp.FinWait2: "FIN-WAIT-2", tcp.TimeWait: "TIME-WAIT", tcp.CloseWait: "CLOSE-WAIT", tcp.LastAck: "LAST-ACK",
	tcp.Closing: "CLOSING", tcp.NewSynRecv: "SYN-RECV",
}

func connection(cp *criuimg.Checkpoint, sk criuimg.Socket) Connection {
	c := Connection{State: stateNames[sk.State], Local: sk.Local, Remote: sk.Remote, Device: sk.Device, Options: []string{}}
	q, err := cp.Queues(sk)
	if err != nil {
		c.Problem = err.Error()
		if errors.Is(err, fs.ErrNotExist) {
			c.Problem = "its image is missing, and CRIU cannot restore it"
		}
		return c
	}
	c.SendQueue, c.Unsent, c.ReceiveQueue, c.MSS = q.Sent, q.Unsent, q.Received, q.MSS
	if q.Scale {
		c.SendScale, c.ReceiveScale = q.SendScale, q.ReceiveScale
	}
	for _, option := range []struct {
		name string
		on   bool
	}{
		{"wscale", q.Scale},
		{"sack", q.SACK},
		{"timestamps", q.Timestamps},
		{"ecn", q.ECN},
		{"nodelay", q.NoDelay},
		{"cork", q.Cork},
		{"keepalive", sk.Keepalive},
		{"shut-read", sk.ShutRead},
		{"shut-write", sk.ShutWrite},
	} {
		if option.on {
			c.Options = append(c.Options, option.name)
		}
	}
	return c
}

func protocol(number int) string {
	switch number {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_UDPLITE:
		return "udplite"
	}
	return strconv.Itoa(number)
}

// needs says what a restore needs.
func (c *Checkpoint) needs(cp *criuimg.Checkpoint) {
	n := &c.Needs
	*n = Needs{
		NetNS: netnsNames[cp.NetNS], Key: cp.ExtKey, TCPEstablished: len(c.Connections) > 0,
		Addresses: []netip.Addr{}, Ports: []string{},
	}
	address := func(a netip.Addr) {
		if !a.IsUnspecified() {
			n.Addresses = append(n.Addresses, a)
		}
	}
	device := func(name string) {
		if name != "" {
			n.Interfaces = append(n.Interfaces, name)
		}
	}
	for _, conn := range c.Connections {
		address(conn.Local.Addr())
		device(conn.Device)
	}
	for _, l := range c.Listening {
		address(l.Local.Addr().Unmap())
		device(l.Device)
		n.Ports = append(n.Ports, fmt.Sprintf("%s/%d", l.Protocol, l.Local.Port()))
	}
	slices.SortFunc(n.Addresses, netip.Addr.Compare)
	n.Addresses = slices.Compact(n.Addresses)
	slices.Sort(n.Interfaces)
	n.Interfaces = slices.Compact(n.Interfaces)
	slices.Sort(n.Ports)
	n.Ports = slices.Compact(n.Ports)
}
