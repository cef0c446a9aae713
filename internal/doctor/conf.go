// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/install"
	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

// homeConf is the second file that every CRIU of root reads (criu/config.c).
const homeConf = "/root/.criu/default.conf"

// reader is a CRIU as somebody starts it: the configuration files that it reads, in this
// order. Of an option with a single value the last one counts.
type reader struct {
	who     []string // the runtimes, or "criu" for the command
	install string   // what netfreeze install --runtime calls it
	files   []*install.Conf
	own     *install.Conf // the one that it reads for this runtime alone
}

func (r *reader) String() string { return strings.Join(r.who, ", ") }

// script is an action-script in a file.
type script struct {
	file *install.Conf
	install.Statement
}

// String names the place.
func (s script) String() string { return fmt.Sprintf("%s:%d", s.file.Path, s.Line) }

// confs are the configuration files of CRIU, by their paths.
type confs struct {
	h     *Host
	files map[string]*install.Conf
}

// inspect reads a configuration file of CRIU.
func (h *Host) inspect(path string) (install.Conf, error) { return install.Inspect(h.Root, path) }

// readConfs reads all that there are.
func (h *Host) readConfs() (*confs, error) {
	c := &confs{h: h, files: map[string]*install.Conf{}}
	paths := []string{homeConf}
	for _, r := range install.Runtimes() {
		paths = append(paths, install.ConfPath(r))
	}
	var errs []error
	for _, p := range paths {
		f, err := h.inspect(p)
		if err != nil {
			errs = append(errs, err)
		}
		c.files[p] = &f
	}
	return c, errors.Join(errs...)
}

// reader returns how CRIU reads its configuration for a runtime, or for nobody if it is
// "default".
func (c *confs) reader(runtime string) *reader {
	r := &reader{who: []string{runtime}, install: runtime}
	files := []*install.Conf{c.files[install.ConfPath("default")], c.files[homeConf]}
	r.own = c.files[install.ConfPath(runtime)]
	switch {
	case runtime == "default":
		r.who = []string{"criu"}
	case runtime == "crun" && !r.own.Exists && c.files[install.ConfPath("runc")].Exists:
		r.own = c.files[install.ConfPath("runc")]
		files = append(files, r.own)
	default:
		files = append(files, r.own)
	}
	r.files = slices.DeleteFunc(files, func(f *install.Conf) bool { return !f.Exists })
	return r
}

// readers returns those of the runtimes that are installed or that an engine uses, and
// of the criu command. Those that read the same files are one.
func (c *confs) readers() (all []*reader) {
	used := c.h.runtimesInUse()
	for _, runtime := range install.Runtimes() {
		if runtime != "default" && !slices.Contains(used, runtime) {
			continue
		}
		r := c.reader(runtime)
		same := slices.IndexFunc(all, func(o *reader) bool { return slices.Equal(o.files, r.files) && len(r.files) > 0 })
		if same >= 0 && runtime != "default" {
			all[same].who = append(all[same].who, r.who...)
			continue
		}
		all = append(all, r)
	}
	return all
}

// runtimesInUse returns which of the runtimes whose files we know are installed, or
// used by an engine under another path.
func (h *Host) runtimesInUse() (used []string) {
	for _, runtime := range []string{"runc", "crun"} {
		if h.look(runtime) != "" || slices.ContainsFunc(h.engines(), func(e engine) bool { return e.runtime == runtime }) {
			used = append(used, runtime)
		}
	}
	return used
}

// isOurs reports whether an action-script is one of ours, by its name: it may be missing.
func isOurs(s install.Statement) bool {
	if s.Name != "action-script" {
		return false
	}
	name, dir := filepath.Base(s.Value), filepath.Base(filepath.Dir(s.Value))
	return name == action.Hook || action.IsScript(name) && (dir == "criu-netfreeze" || s.InBlock)
}

// scripts returns the action-scripts that a reader executes, in the order listed.
func (r *reader) scripts() (all []script) {
	for _, f := range r.files {
		for _, s := range f.Statements {
			if s.Name == "action-script" {
				all = append(all, script{f, s})
			}
		}
	}
	return all
}

// option returns the statement of a name that counts, and whether there is one.
func (r *reader) option(name string) (last script, found bool) {
	for _, f := range r.files {
		for _, s := range f.Statements {
			if s.Name == name {
				last, found = script{f, s}, true
			}
		}
	}
	return last, found
}

// checkConfs looks whether CRIU calls us, whoever starts it, and what contradicts our
// lines.
func checkConfs(h *Host) []Finding {
	c, err := h.readConfs()
	if err != nil {
		return []Finding{fails("/etc/criu", "CRIU cannot read it either: mend or remove the file", "%v", err)}
	}
	var found []Finding
	for _, p := range append(install.Runtimes(), homeConf) {
		f := c.files[p]
		if p != homeConf {
			f = c.files[install.ConfPath(p)]
		}
		found = append(found, h.checkFile(f, p)...)
	}
	found = append(found, c.checkScripts()...)
	all := c.readers()
	called := slices.ContainsFunc(all, func(r *reader) bool { return r.install != "default" })
	for _, r := range all {
		found = append(found, c.checkReader(r, called)...)
	}
	return found
}

// checkFile looks at one file by itself. runtime is what netfreeze install calls it.
func (h *Host) checkFile(f *install.Conf, runtime string) (found []Finding) {
	if f.Marker != nil {
		found = append(found, fails(fmt.Sprintf("%s:%d", f.Path, f.Marker.Line),
			"take the lines of the block out by hand, then netfreeze install", "our block was edited: %s", f.Marker.Text))
	}
	if f.Edited {
		found = append(found, warn(f.Path, installCommand(runtime), "the lines of our block were changed by hand").
			fixedBy(h.reinstall(runtime)))
	}
	fatal := slices.ContainsFunc(f.Statements, func(s install.Statement) bool { return s.Fatal })
	if criu := h.look("criu"); h.live() && f.Exists && !fatal && criu != "" {
		if says, err := accepts(criu, f.Path); err != nil {
			found = append(found, fails(f.Path, "mend the line that it names", "CRIU cannot read the file, so that every dump and restore fails: %s", says))
		}
	}
	for _, s := range f.Statements {
		if s.Problem == "" {
			continue
		}
		place := script{f, s}.String()
		switch {
		case s.Fatal:
			found = append(found, fails(place, "mend the line", "%s", s.Problem))
		case s.Name == "tcp-close", s.Name == "no-tcp-established":
			found = append(found, fails(place, "take the line out", "%s", s.Problem))
		default:
			found = append(found, warn(place, "take the line out", "%s", s.Problem))
		}
	}
	return found
}

// checkScripts looks at each of our scripts that is listed somewhere.
func (c *confs) checkScripts() (found []Finding) {
	seen := map[string]bool{}
	for _, runtime := range install.Runtimes() {
		for _, s := range c.reader(runtime).scripts() {
			if !isOurs(s.Statement) || seen[s.Value] {
				continue
			}
			seen[s.Value] = true
			err := install.CheckScript(c.h.Root, s.Value)
			if err == nil {
				continue
			}
			f := fails(s.String(), scriptRemedy(c.h, s.Value), "every dump and restore fails: %v", err)
			if s.InBlock && install.CheckScript(c.h.Root, install.DefaultHook(c.h.Root)) == nil {
				f = f.fixedBy(c.h.reinstall(runtime))
			}
			found = append(found, f)
		}
	}
	return found
}

func scriptRemedy(h *Host, path string) string {
	switch {
	case !h.exists(path) && install.CheckScript(h.Root, install.DefaultHook(h.Root)) == nil:
		return "netfreeze install, which lists " + install.DefaultHook(h.Root)
	case !h.exists(path):
		return "install the programs again (make install), or netfreeze uninstall"
	}
	return "install the programs again (make install): the file must be root's, executable, and writable by nobody else"
}

func installCommand(runtime string) string { return "netfreeze install --runtime " + runtime }
