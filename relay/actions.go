package relay

// The actions that CRIU announces in CRTOOLS_SCRIPT_ACTION and that concern a
// freeze (action_names in criu/action-scripts.c), in the order of a dump and of
// a restore.
const (
	PreDump     = "pre-dump"
	NetworkLock = "network-lock"
	PostDump    = "post-dump"

	PreRestore    = "pre-restore"
	PostSetupNS   = "post-setup-namespaces"
	NetworkUnlock = "network-unlock"
	PostResume    = "post-resume"
)

// isScript reports whether a script has this name: netfreeze-hook, which does
// all actions in one exec, or one of the four that share them.
//
//go:nosplit
func isScript(name string) bool {
	switch name {
	case "netfreeze-hook", "pre-dump", "post-dump", "pre-restore", "post-resume":
		return true
	}
	return false
}

// does reports whether an action is a script's, by the name under which it was
// executed.
//
//go:nosplit
func does(name, action string) bool {
	switch action {
	case PreDump, NetworkLock:
		return name == "netfreeze-hook" || name == "pre-dump"
	case PostDump:
		return name == "netfreeze-hook" || name == "post-dump"
	case PreRestore, PostSetupNS:
		return name == "netfreeze-hook" || name == "pre-restore"
	case NetworkUnlock:
		return name == "netfreeze-hook" || name == "post-dump" || name == "post-resume"
	case PostResume:
		return name == "netfreeze-hook" || name == "post-resume"
	}
	return false
}

// known reports whether CRIU has an action of this name at all.
//
//go:nosplit
func known(action string) bool {
	switch action {
	case PreDump, NetworkLock, PostDump, PreRestore, PostSetupNS, NetworkUnlock, PostResume,
		"pre-stream", "post-restore", "setup-namespaces", "pre-resume",
		"orphan-pts-master", "status-ready", "query-ext-files":
		return true
	}
	return false
}
