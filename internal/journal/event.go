// SPDX-License-Identifier: Apache-2.0

// Package journal keeps a short report of each dump and restore: what CRIU asked for
// and when, how long the network was frozen, what was sent, and what became of it. A
// report is one file of JSON lines, to which its settler adds a line for each event,
// so that even one that is killed leaves what it knew. Nothing depends on them.
package journal

import (
	"net/netip"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Dir is where the reports are.
var Dir = "/var/log/criu-netfreeze"

// Kind says what an event is.
type Kind string

// The kinds of events, and which of the fields of an Event each one uses.
const (
	Begin       Kind = "begin"       // Header
	Action      Kind = "action"      // Name, TookNS, State, Error: CRIU asked for it, and was answered
	Frozen      Kind = "frozen"      // packets are dropped from here on
	Thawed      Kind = "thawed"      // and pass from here on
	Connections Kind = "connections" // Tasks, Count, Conns: what the images have
	Sent        Kind = "sent"        // Name, Packets
	Carried     Kind = "carried"     // Carried
	Message     Kind = "message"     // Level, Text
	Outcome     Kind = "outcome"     // Name: what became of it
)

// Event is one line of a report. Its times are those of the wall clock, of which the
// monotonic clock gave the distances.
type Event struct {
	At      time.Time  `json:"at"`
	Kind    Kind       `json:"kind"`
	Header  *Header    `json:"header,omitempty"`
	Name    string     `json:"name,omitempty"`
	TookNS  int64      `json:"took_ns,omitempty"`
	State   string     `json:"state,omitempty"` // of the transaction, after the action
	Error   string     `json:"error,omitempty"`
	Tasks   int        `json:"tasks,omitempty"`
	Count   int        `json:"count,omitempty"`       // of connections
	Conns   tcp.Tuples `json:"connections,omitempty"` // of which so many are named
	Packets int        `json:"packets,omitempty"`
	Carried []Flow     `json:"carried,omitempty"`
	Level   string     `json:"level,omitempty"`
	Text    string     `json:"text,omitempty"`
}

// Header says what a report is about.
type Header struct {
	Op        string             `json:"op"` // dump or restore
	CRIU      int                `json:"criu"`
	Root      int                `json:"root,omitempty"` // the root task of a dump
	Container identity.Container `json:"container"`
	NetNS     string             `json:"netns,omitempty"`
	Scope     string             `json:"scope,omitempty"`
	Policy    string             `json:"policy"`
	Why       string             `json:"policy_from"`
	Backend   string             `json:"backend,omitempty"`
}

// Flow is when a connection carried its first bytes after the thaw, as far as that was
// seen.
type Flow struct {
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
	InNS   *int64         `json:"in_ns"`  // after the thaw: bytes of the peer came in
	OutNS  *int64         `json:"out_ns"` // the peer acknowledged bytes of ours
}

// The outcomes of a dump and of a restore.
const (
	Held     = "held"     // tasks stopped, network frozen
	Ended    = "ended"    // tasks gone, network frozen
	Isolated = "isolated" // tasks run, network frozen
	WentOn   = "went on"  // tasks run, network open
	Restored = "restored"
	Failed   = "failed"  // everything was taken back
	Kept     = "kept"    // a restore failed, and the namespace stays frozen
	Refused  = "refused" // before anything was changed
)
