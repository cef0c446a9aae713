// Package action names what passes between CRIU, the action-script that CRIU
// executes and the settler that does the work: the actions of CRIU, the names
// of the scripts, and the messages in between.
//
// It is linked into the action-script and used there before Go's runtime
// starts (package early), so it imports nothing that needs to be initialised,
// and what is marked nosplit allocates nothing and calls nothing that does.
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
// action, the other four share them.
const (
	Hook             = "netfreeze-hook"
	PreDumpScript    = "pre-dump"
	PostDumpScript   = "post-dump"
	PreRestoreScript = "pre-restore"
	PostResumeScript = "post-resume"
)

// IsScript reports whether an action-script has this name.
//
//go:nosplit
func IsScript(name string) bool {
	switch name {
	case Hook, PreDumpScript, PostDumpScript, PreRestoreScript, PostResumeScript:
		return true
	}
	return false
}

// Does reports whether the script called name does an action.
//
//go:nosplit
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
func Known(action string) bool {
	switch action {
	case PreDump, NetworkLock, PostDump, PreRestore, PostSetupNS, NetworkUnlock, PostResume,
		"pre-stream", "post-restore", "setup-namespaces", "pre-resume",
		"orphan-pts-master", "status-ready", "query-ext-files":
		return true
	}
	return false
}
