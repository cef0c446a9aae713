// SPDX-License-Identifier: Apache-2.0

// Package config reads the suite's own configuration, /etc/criu/netfreeze.toml:
// what happens to a container once it has been dumped, for how long its network
// stays frozen and by which back end. It knows the file's syntax, the defaults
// and which override applies to which container; it changes nothing anywhere.
//
// Every settler and the CNI plugin load it when they start, so it does nothing at
// package initialisation.
package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
)

// Path is where the configuration is looked for.
const Path = "/etc/criu/netfreeze.toml"

// PolicyAnnotation is the OCI annotation, of the container or of its pod, that
// chooses the policy where [Config.Annotations] allows it.
const PolicyAnnotation = "io.criu.netfreeze.policy"

// Policy says what happens to a process tree after a dump whose caller asked for
// it to be left running.
type Policy string

const (
	// Hold stops the tasks and keeps the network frozen; both can be undone.
	Hold Policy = "hold"
	// Run thaws the network and lets the tasks go on.
	Run Policy = "run"
	// Isolate lets the tasks go on behind a frozen network.
	Isolate Policy = "isolate"
	// Kill holds until CRIU has succeeded, then ends the tasks without a packet.
	Kill Policy = "kill"
)

// Policies returns all policies, the default one first.
func Policies() []Policy { return []Policy{Hold, Run, Isolate, Kill} }

// ParsePolicy returns the policy called s. The error names the allowed ones.
func ParsePolicy(s string) (Policy, error) {
	return parseWord("policy", s, Policies())
}

// RestoreFailure says what happens to a freeze when a restore has failed.
type RestoreFailure string

const (
	// Thaw lifts the freeze of a namespace whose restore failed.
	Thaw RestoreFailure = "thaw"
	// Keep leaves it frozen for another try, until its time to live is over.
	Keep RestoreFailure = "keep"
)

// Quiet says whether the peers are made to stop sending before a freeze.
type Quiet string

const (
	// AutoQuiet does so where the back end can.
	AutoQuiet Quiet = "auto"
	// NoQuiet lets the freeze drop what is under way.
	NoQuiet Quiet = "off"
)

// Quiets returns all values of quiet, the default one first.
func Quiets() []Quiet { return []Quiet{AutoQuiet, NoQuiet} }

// Resume says how traffic is started again after a thaw.
type Resume string

// The ways to resume.
const (
	// Nudge makes the peers and our own kernel retransmit at once what was lost.
	Nudge Resume = "nudge"
	// None waits for everybody's retransmission timers.
	None Resume = "none"
)

// Resumes returns all values of resume, the default one first.
func Resumes() []Resume { return []Resume{Nudge, None} }

// RestoreFailures returns all values of restore-failure, the default one first.
func RestoreFailures() []RestoreFailure { return []RestoreFailure{Thaw, Keep} }

// HoldSigterm says what a held tree does that is asked to end by SIGTERM, which it
// cannot see as long as it is stopped.
type HoldSigterm string

const (
	// EndHeld ends it without a packet, as netfreeze kill does.
	EndHeld HoldSigterm = "kill"
	// WaitHeld leaves the signal pending: whoever stops the container waits for its
	// whole grace period.
	WaitHeld HoldSigterm = "wait"
)

// HoldSigterms returns all values of hold-sigterm, the default one first.
func HoldSigterms() []HoldSigterm { return []HoldSigterm{EndHeld, WaitHeld} }

// Restart says what happens when a container starts in a namespace that is frozen for
// the restore of another one.
type Restart string

const (
	// ThawRestart gives it its network: what runs goes before what might be restored.
	ThawRestart Restart = "thaw"
	// KeepRestart keeps the namespace frozen.
	KeepRestart Restart = "keep"
)

// Restarts returns all values of restart, the default one first.
func Restarts() []Restart { return []Restart{ThawRestart, KeepRestart} }

// Answer says when the peers of frozen connections are answered, so that they do not
// give up.
type Answer string

const (
	// AnswerAuto answers for tasks that live, held or isolated.
	AnswerAuto Answer = "auto"
	// AnswerAlways answers for those that have ended as well, as long as their
	// namespace waits for a restore.
	AnswerAlways Answer = "always"
	// AnswerOff never answers.
	AnswerOff Answer = "off"
)

// Answers returns all values of answer, the default one first.
func Answers() []Answer { return []Answer{AnswerAuto, AnswerAlways, AnswerOff} }

// LogLevels returns the log levels, from the fewest messages to the most: those
// that logrus.ParseLevel accepts.
func LogLevels() []string {
	return []string{"panic", "fatal", "error", "warning", "info", "debug", "trace"}
}

// Bounds of the durations. A time to live must be long enough for a dump to
// commit, and short enough to end an outage that everybody has forgotten about.
// New connections are held back during the drain, which must not become an outage
// itself.
const (
	MinTTL   = time.Second
	MaxTTL   = 24 * time.Hour
	MinDrain = time.Duration(0)
	MaxDrain = 10 * time.Second

	// The peers can send nothing while it is waited for the last of what they sent.
	MinQuietTime = time.Millisecond
	MaxQuietTime = 5 * time.Second

	MinAnnounceInterval = 10 * time.Millisecond
	MaxAnnounceInterval = 10 * time.Second
)

// Limits of counts.
const (
	MaxNudgePackets  = 64
	MaxAnnounceCount = 10
)

// Config is the whole configuration with all defaults filled in.
type Config struct {
	// Backend is how a freeze is made, unless an override says otherwise.
	Backend backend.Kind
	// Policy is what happens after a dump, unless an override says otherwise.
	Policy Policy
	// TTL is how long the kernel keeps a freeze at most.
	TTL time.Duration
	// Drain is how long new SYNs may be held back before a dump while the
	// application accepts pending handshakes; 0 turns this off.
	Drain time.Duration
	// Quieting is how the peers are made to stop sending before a freeze.
	Quieting
	// RestoreFailure is what happens to the freeze when a restore fails.
	RestoreFailure RestoreFailure
	// Resuming is how traffic is started again after a thaw.
	Resuming
	// Holding is how a hold ends by itself.
	Holding
	// Annotations says whether [PolicyAnnotation] may choose the policy.
	Annotations bool
	// Log says where messages go, and how many of them are written.
	Log Log
	// Containers are the overrides in the order of the file.
	Containers []Rule

	name string // the file, for Settings.Why
}

// Holding is how a hold, or the freeze that it leaves, ends by itself.
type Holding struct {
	// HoldThenKill is after which time a held tree is ended without a packet, unless
	// somebody thaws it before; 0 is never.
	HoldThenKill time.Duration
	// HoldSigterm is what a held tree does at SIGTERM.
	HoldSigterm HoldSigterm
	// Restart is what happens when another container starts where one has ended.
	Restart Restart
	// Answer is when the peers are answered meanwhile, unless an override says otherwise.
	Answer Answer
}

// Quieting is how the peers are made to stop sending before a freeze, so that nothing
// is under way when it comes.
type Quieting struct {
	// Quiet says whether that is done.
	Quiet Quiet
	// QuietTime is how long it may take at most.
	QuietTime time.Duration
}

// Resuming is how traffic is started again after a thaw.
type Resuming struct {
	// Resume says whether connections are nudged.
	Resume Resume
	// NudgePackets is how many packets a nudge sends per connection at most.
	NudgePackets int
	// AnnounceCount and AnnounceInterval say how often a restored namespace's
	// addresses are announced to its neighbours; 0 times turns that off.
	AnnounceCount    int
	AnnounceInterval time.Duration
}

// Log is the [log] table.
type Log struct {
	// Level is one of [LogLevels].
	Level string
	// File is an absolute path; empty is stderr, which is CRIU's log.
	File string
}

// Rule is one [[container]] table: which containers it applies to and what is
// different for them. All the patterns that are given must match.
type Rule struct {
	// ID is a glob, or the beginning of an id if it is plain hexadecimal.
	ID string
	// Name is a glob over the container's name.
	Name string
	// Pod is a glob over "namespace/name" of the pod.
	Pod string

	// Backend, Policy, Quiet and Answer are empty, and the durations nil, where the rule
	// leaves them as they are.
	Backend   backend.Kind
	Policy    Policy
	TTL       *time.Duration
	Drain     *time.Duration
	Quiet     Quiet
	QuietTime *time.Duration
	Answer    Answer

	// Line is where the rule stands in its file, from 1.
	Line int
}

// Default returns the configuration that applies without a file.
func Default() *Config {
	return &Config{
		Backend:        backend.Auto,
		Policy:         Hold,
		TTL:            15 * time.Minute,
		Drain:          100 * time.Millisecond,
		Quieting:       Quieting{Quiet: AutoQuiet, QuietTime: 300 * time.Millisecond},
		RestoreFailure: Thaw,
		Resuming: Resuming{
			Resume: Nudge, NudgePackets: 16,
			AnnounceCount: 3, AnnounceInterval: 200 * time.Millisecond,
		},
		Holding:     Holding{HoldSigterm: EndHeld, Restart: ThawRestart, Answer: AnswerAuto},
		Annotations: false,
		Log:         Log{Level: "info"},
		name:        "built-in defaults",
	}
}

// parseWord finds s among the allowed words.
func parseWord[T ~string](what, s string, allowed []T) (T, error) {
	for _, a := range allowed {
		if s == string(a) {
			return a, nil
		}
	}
	words := make([]string, len(allowed))
	for i, a := range allowed {
		words[i] = string(a)
	}
	return "", fmt.Errorf("%s = %q: not one of %s%s", what, s, quoteAll(words), didYouMean(s, words)) // it gets its code where it is known what s came from
}

// quoteAll lists words for a message: "a", "b".
func quoteAll(words []string) string {
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", w)
	}
	return b.String()
}
