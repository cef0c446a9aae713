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

// script lists the actions that a script does, by the name under which it was
// executed. The last one does them all in one exec.
func script(name string) []string {
	switch name {
	case "pre-dump":
		return []string{PreDump, NetworkLock}
	case "post-dump":
		return []string{PostDump, NetworkUnlock}
	case "pre-restore":
		return []string{PreRestore, PostSetupNS}
	case "post-resume":
		return []string{PostResume, NetworkUnlock}
	case "netfreeze-hook":
		return []string{PreDump, NetworkLock, PostDump, PreRestore, PostSetupNS, NetworkUnlock, PostResume}
	}
	return nil
}

// known reports whether CRIU has an action of this name at all.
func known(action string) bool {
	switch action {
	case PreDump, NetworkLock, PostDump, PreRestore, PostSetupNS, NetworkUnlock, PostResume,
		"pre-stream", "post-restore", "setup-namespaces", "pre-resume",
		"orphan-pts-master", "status-ready", "query-ext-files":
		return true
	}
	return false
}
