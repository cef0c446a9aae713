// SPDX-License-Identifier: Apache-2.0

// Package action is the vocabulary that CRIU, the action-script and the settler
// share: the actions of CRIU, the names of the scripts, and the messages that a
// script and the settler exchange.
//
// It is a leaf. The action-script links it, which has to stay small, and uses it
// before Go's runtime has started (package hook/early). So nothing here needs
// initialising, fmt is not imported, and functions marked nosplit neither allocate
// nor call anything that might.
package action

// The actions that CRIU announces in CRTOOLS_SCRIPT_ACTION and that concern a
// freeze (action_names in criu/action-scripts.c), in the order of a dump and of
// a restore. NetworkUnlock belongs to both.
const (
	PreDump     = "pre-dump"
	NetworkLock = "network-lock"
	PostDump    = "post-dump"

	PreRestore    = "pre-restore"
	PostSetupNS   = "post-setup-namespaces"
	NetworkUnlock = "network-unlock"
	PostResume    = "post-resume"
)

// The names under which the action-script can be executed: Hook does every
// action; the other four divide the actions among themselves.
const (
	Hook             = "netfreeze-hook"
	PreDumpScript    = "pre-dump"
	PostDumpScript   = "post-dump"
	PreRestoreScript = "pre-restore"
	PostResumeScript = "post-resume"
)

// IsScript reports whether an action-script may be executed under this name, which
// is the last element of a path (see Base).
//
//go:nosplit
//go:norace
func IsScript(name string) bool {
	switch name {
	case Hook, PreDumpScript, PostDumpScript, PreRestoreScript, PostResumeScript:
		return true
	}
	return false
}

// Does reports whether the script called name has to do anything for an action. CRIU
// executes every script for every action, so most often the answer is no.
//
//go:nosplit
//go:norace
func Does(name, action string) bool {
	switch action {
	case PreDump, NetworkLock:
		return name == Hook || name == PreDumpScript
	case PostDump:
		return name == Hook || name == PostDumpScript
	case PreRestore, PostSetupNS:
		return name == Hook || name == PreRestoreScript
	case NetworkUnlock:
		return name == Hook || name == PostDumpScript || name == PostResumeScript
	case PostResume:
		return name == Hook || name == PostResumeScript
	}
	return false
}

// Known reports whether CRIU has an action of this name at all.
//
//go:nosplit
//go:norace
func Known(action string) bool {
	switch action {
	case PreDump, NetworkLock, PostDump, PreRestore, PostSetupNS, NetworkUnlock, PostResume,
		"pre-stream", "post-restore", "setup-namespaces", "pre-resume",
		"orphan-pts-master", "status-ready", "query-ext-files":
		return true
	}
	return false
}

// Begins reports whether an action is the first one of a dump or of a restore,
// before which there is no settler.
//
//go:nosplit
//go:norace
func Begins(action string) bool { return action == PreDump || action == PreRestore }
