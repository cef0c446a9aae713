// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/install"
	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

// checkReader looks whether we are in effect where this CRIU reads. called says that
// there is a runtime that calls CRIU, beside the command.
func (c *confs) checkReader(r *reader, called bool) []Finding {
	scripts := r.scripts()
	var ours []script
	for _, s := range scripts {
		if isOurs(s.Statement) {
			ours = append(ours, s)
		}
	}
	if len(ours) == 0 {
		return []Finding{c.notInEffect(r, called)}
	}
	found := c.checkOrder(r, scripts, ours)
	found = append(found, checkSplit(r, ours)...)
	found = append(found, c.checkOptions(r)...)
	if Count(found, Fails)+Count(found, Warning) == 0 {
		found = append(found, ok(r.String(), "CRIU reads %s, which lists %s", paths(r.files), ours[0].Value))
	}
	return found
}

func paths(files []*install.Conf) string {
	var all []string
	for _, f := range files {
		all = append(all, f.Path)
	}
	return strings.Join(all, " and ")
}

// notInEffect says that none of our scripts is listed, and why that may be.
func (c *confs) notInEffect(r *reader, called bool) Finding {
	runc := c.files[install.ConfPath("runc")]
	switch {
	case r.install == "default" && (called || c.h.look("criu") == ""):
		return note(r.String(), installCommand("default"), "the criu command by itself does not call us; the runtimes do not need that")
	case r.install == "crun" && r.own.Exists && slices.ContainsFunc(runc.Statements, isOurs):
		return fails(r.String(), installCommand("crun"), "%s hides %s from crun, and does not list our hook: dumps by crun are not frozen", r.own.Path, runc.Path).
			fixedBy(c.h.reinstall("crun"))
	}
	why := "there is no " + r.own.Path
	if r.own.Exists {
		why = r.own.Path + " does not list our hook"
	}
	return fails(r.String(), installCommand(r.install), "%s: dumps and restores are not frozen", why).
		fixedBy(c.h.reinstall(r.install))
}

// checkOrder looks whether ours run last, and once. CRIU runs the script that is listed
// first last.
func (c *confs) checkOrder(r *reader, scripts, ours []script) (found []Finding) {
	seen := map[string]script{}
	for _, s := range ours {
		if before, twice := seen[s.Value]; twice {
			remedy := "take one of the lines out"
			if before.file != s.file && before.InBlock {
				remedy = "netfreeze uninstall --runtime " + strings.TrimSuffix(filepath.Base(before.file.Path), ".conf")
			}
			found = append(found, warn(r.String(), remedy, "the hook is listed twice, in %s and in %s: it runs twice for each action, which is harmless but slower", before, s))
			break
		}
		seen[s.Value] = s
	}
	first := scripts[0]
	if isOurs(first.Statement) {
		return found
	}
	f := warn(first.String(), "list our script before that line", "CRIU runs %s after our script, since it is listed first, and ours is to run last", first.Value)
	if ours[0].InBlock && ours[0].file == first.file {
		f.Remedy = installCommand(runtimeOf(first.file))
		f = f.fixedBy(c.h.reinstall(runtimeOf(first.file)))
	}
	return append(found, f)
}

// runtimeOf returns what netfreeze install calls a file.
func runtimeOf(f *install.Conf) string { return strings.TrimSuffix(filepath.Base(f.Path), ".conf") }

// checkSplit looks whether all four scripts are listed, where one is.
func checkSplit(r *reader, ours []script) []Finding {
	all := []string{action.PreDumpScript, action.PostDumpScript, action.PreRestoreScript, action.PostResumeScript}
	missing := slices.DeleteFunc(all, func(name string) bool {
		return slices.ContainsFunc(ours, func(s script) bool {
			base := filepath.Base(s.Value)
			return base == name || base == action.Hook
		})
	})
	if len(missing) == 0 {
		return nil
	}
	return []Finding{fails(ours[0].String(), "netfreeze install, which lists netfreeze-hook instead, or list all four",
		"%s: the split scripts are incomplete, %s is not listed: transactions do not begin, or do not end", r, strings.Join(missing, ", "))}
}

// checkOptions looks at the options that count in the end.
func (c *confs) checkOptions(r *reader) (found []Finding) {
	if _, set := r.option("tcp-established"); !set {
		f := warn(r.String(), installCommand(r.install), "tcp-established is not set: a tree with connections can only be dumped if the caller asks for it")
		if r.own.Block != nil { // by hand, our lines would be doubled
			f = f.fixedBy(c.h.reinstall(runtimeOf(r.own)))
		}
		found = append(found, f)
	}
	if _, set := r.option("network-lock"); !set {
		found = append(found, note(r.String(), installCommand(r.install), "CRIU keeps a network lock of its own beside our freeze, by iptables unless it was built otherwise: dumps are slower"))
	}
	cgroups, set := r.option("manage-cgroups")
	if slices.Contains(r.who, "crun") && install.Unified(c.h.Root) && (!set || cgroups.Value != "ignore") {
		runtime := runtimeOf(r.own)
		f := warn(r.String(), installCommand(runtime)+" --manage-cgroups ignore", "manage-cgroups ignore is not set, which crun's restores need on cgroup v2")
		if r.own.Block != nil && r.own.Block.ManageCgroups == "" {
			f = f.fixedBy(c.h.reinstallWith(runtime, func(o *install.Options) { o.ManageCgroups = "ignore" }))
		}
		found = append(found, f)
	}
	if log, set := r.option("log-file"); set && strings.HasPrefix(log.Value, "/") && !c.h.exists(filepath.Dir(log.Value)) {
		found = append(found, fails(log.String(), "mkdir -p "+filepath.Dir(log.Value), "the directory of log-file %s does not exist: CRIU does not start", log.Value))
	}
	return found
}

// reinstall installs our lines for a runtime anew.
func (h *Host) reinstall(runtime string) (key string, do func() (string, error)) {
	return h.reinstallWith(runtime, func(*install.Options) {})
}

// reinstallWith installs our lines for a runtime anew, with the options that the block
// has now, and what change adds. It replaces the block and nothing else.
func (h *Host) reinstallWith(runtime string, change func(*install.Options)) (key string, do func() (string, error)) {
	return installCommand(runtime), func() (string, error) {
		o := install.Options{Root: h.Root, Runtimes: []string{runtime}, NetworkLock: "skip", Hook: install.DefaultHook(h.Root)}
		f, err := h.inspect(install.ConfPath(runtime))
		if err != nil {
			return "", err
		}
		if b := f.Block; b != nil {
			o.NetworkLock, o.ManageCgroups, o.LogFile = b.NetworkLock, b.ManageCgroups, b.LogFile
			if len(b.Scripts) > 0 && install.CheckScript(h.Root, b.Scripts[0]) == nil {
				o.Hook, o.Split = b.Scripts[0], b.Split()
			}
		}
		change(&o)
		p, err := install.PlanInstall(o)
		if err != nil {
			return "", err
		}
		if err := p.Apply(); err != nil {
			return "", err
		}
		for _, c := range p.Changes {
			if c.Diff() != "" {
				return c.Path + ": " + c.Action(), nil
			}
		}
		return "nothing was to be changed for " + runtime, nil
	}
}
