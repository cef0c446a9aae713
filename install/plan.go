// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/safefile"
)

// configDir is where CRIU and the runtimes look for configuration files.
const configDir = "/etc/criu"

// Runtimes returns the names of the configuration files, without .conf, that can be
// edited. runc reads runc.conf; crun reads crun.conf or, if that is missing,
// runc.conf; CRIU itself always reads default.conf first, even if a runtime has
// started it.
func Runtimes() []string { return []string{"runc", "crun", "default"} }

// DefaultRuntimes returns the runtimes that are meant if none is named.
func DefaultRuntimes() []string { return []string{"runc", "crun"} }

// Options are what the user asks for.
type Options struct {
	// Root is the directory in which all paths are looked up; empty means /.
	Root string
	// Runtimes are some of [Runtimes].
	Runtimes []string
	// Hook is the path of netfreeze-hook. With Split the four scripts are expected
	// in its directory.
	Hook string
	// Split lists the four scripts instead of the one that handles all actions.
	Split bool
	// NetworkLock, ManageCgroups and LogFile are as in [Block].
	NetworkLock   string
	ManageCgroups string
	LogFile       string
	// StopAfterDump is the policy to write into netfreeze.toml; empty means none.
	StopAfterDump config.Policy
}

func (o Options) root() string {
	if o.Root == "" {
		return "/"
	}
	return o.Root
}

// scripts returns the paths to list as action-script. Each of the four scripts
// handles actions of its own, so their order does not matter.
func (o Options) scripts() []string {
	if !o.Split {
		return []string{o.Hook}
	}
	dir := path.Dir(o.Hook)
	return []string{dir + "/pre-dump", dir + "/post-dump", dir + "/pre-restore", dir + "/post-resume"}
}

// Plan is what an install or an uninstall will do.
type Plan struct {
	Changes  []*Change
	Warnings []Warning
	// Notes explain decisions that may surprise.
	Notes []string
}

// files are CRIU's configuration files for all runtimes, and ours.
type files struct {
	confs map[string]*Change // by runtime
	own   *Change
}

// conf returns the path of a runtime's configuration file.
func conf(runtime string) string { return configDir + "/" + runtime + ".conf" }

func openFiles(o Options) (files, error) {
	for _, r := range o.Runtimes {
		if !slices.Contains(Runtimes(), r) {
			return files{}, code.New(code.Usage, fmt.Sprintf("runtime %q: not one of %s", r, strings.Join(Runtimes(), ", ")))
		}
	}
	f := files{confs: map[string]*Change{}}
	var err error
	for _, r := range Runtimes() {
		if f.confs[r], err = open(o.root(), conf(r)); err != nil {
			return files{}, fmt.Errorf("read configuration: %w", err)
		}
	}
	if f.own, err = open(o.root(), config.Path); err != nil {
		return files{}, fmt.Errorf("read configuration: %w", err)
	}
	return f, nil
}

// dirIsOurs reports whether the directory is made by this install or was made by an
// earlier one.
func (f files) dirIsOurs() bool {
	for _, c := range f.all() {
		b, err := findBlock(c.Before)
		if c.makeDir || (err == nil && b.origin.Dir) {
			return true
		}
	}
	return false
}

// all returns the files in a fixed order.
func (f files) all() []*Change {
	var cs []*Change
	for _, r := range Runtimes() {
		cs = append(cs, f.confs[r])
	}
	return append(cs, f.own)
}

// hasBlock reports whether a runtime's file will have our block after the plan.
func (f files) hasBlock(runtime string) bool {
	b, err := findBlock(f.confs[runtime].After)
	return err == nil && b.found
}

// PlanInstall checks everything and returns what is to be done. It does not change
// anything yet.
func PlanInstall(o Options) (*Plan, error) {
	f, err := openFiles(o)
	if err != nil {
		return nil, err
	}
	b := Block{
		Scripts:       o.scripts(),
		NetworkLock:   o.NetworkLock,
		ManageCgroups: o.ManageCgroups,
		LogFile:       o.LogFile,
	}
	errs := []error{b.check()}
	if errs[0] == nil {
		for _, s := range b.Scripts {
			errs = append(errs, checkScript(o.root(), s))
		}
	}
	p := &Plan{}
	ours := f.dirIsOurs()
	for _, r := range Runtimes() { // runc before crun, which depends on it
		if !slices.Contains(o.Runtimes, r) {
			continue
		}
		c := f.confs[r]
		needs := r == "crun" && o.ManageCgroups == "" && unified(o.root())
		if r == "crun" && c.Before == nil && f.confs["runc"].After != nil {
			errs = append(errs, p.leaveToRunc(f))
			if needs {
				p.Notes = append(p.Notes, "on this host's cgroup v2 crun's restores need manage-cgroups ignore, which then holds for runc as well: --manage-cgroups ignore adds it")
			}
			continue
		}
		b.ManageCgroups = o.ManageCgroups
		if needs {
			b.ManageCgroups = "ignore"
			p.Notes = append(p.Notes, c.Path+" gets manage-cgroups ignore, which crun's restores need on cgroup v2")
		}
		b.Origin = Origin{File: c.Before == nil, Dir: c.Before == nil && ours}
		after, warnings, err := Add(c.Before, b)
		if err != nil {
			errs = append(errs, inFile(c.Path, err))
			continue
		}
		c.After = after
		for _, w := range warnings {
			w.File = c.Path
			p.Warnings = append(p.Warnings, w)
		}
	}
	if f.hasBlock("default") && (f.hasBlock("runc") || f.hasBlock("crun")) {
		p.Warnings = append(p.Warnings, Warning{File: conf("default"), Text: "CRIU reads this file also when a runtime starts it, so that with runc.conf or crun.conf " +
			"the hook runs twice for each action: harmless, but slower"})
	}
	if o.StopAfterDump != "" {
		errs = append(errs, f.own.setPolicy(o.StopAfterDump, ours))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	p.Changes = f.all()
	return p, nil
}

// unified reports whether there is nothing but cgroup v2, where a restore by crun fails
// if CRIU treats control groups as it does by default.
func unified(root string) bool {
	_, err := os.Stat(filepath.Join(root, "sys/fs/cgroup/cgroup.controllers"))
	return err == nil
}

// leaveToRunc decides what to do if there is a runc.conf but no crun.conf. Making
// one would hide from crun all that runc.conf says.
func (p *Plan) leaveToRunc(f files) error {
	if !f.hasBlock("runc") {
		return code.New(code.InstallConflict, fmt.Sprintf("%s is missing, so that crun reads %s; "+
			"a new file would hide that from it: install for runc,crun, or copy %[2]s to %[1]s first", conf("crun"), conf("runc")))
	}
	p.Notes = append(p.Notes, fmt.Sprintf("%s is missing: crun reads %s, which lists the hook", conf("crun"), conf("runc")))
	return nil
}

// setPolicy plans the change of netfreeze.toml.
func (c *Change) setPolicy(policy config.Policy, ours bool) error {
	content, origin := c.Before, Origin{}
	if c.Before == nil {
		content, origin = DefaultConfig, Origin{File: true, Dir: ours}
	}
	after, err := SetPolicy(content, policy, origin, c.Path)
	if err != nil {
		return inFile(c.Path, err)
	}
	if c.Before != nil || !bytes.Equal(after, DefaultConfig) {
		c.After = after
	}
	return nil
}

// inFile adds the file's name to a [MarkerError]; other errors name it themselves.
func inFile(path string, err error) error {
	var m *MarkerError
	if errors.As(err, &m) {
		return code.New(code.InstallConflict, fmt.Sprintf("%s:%d: %s", path, m.Line, m.Text))
	}
	return err
}

// PlanUninstall returns the changes that take our blocks out of the files of the
// given runtimes and, if no file has one any more then, our policy out of
// netfreeze.toml. It does not change anything yet. It uses only Root and Runtimes
// of the options.
func PlanUninstall(o Options) (*Plan, error) {
	f, err := openFiles(o)
	if err != nil {
		return nil, err
	}
	p := &Plan{Changes: f.all()}
	var errs []error
	for _, r := range o.Runtimes {
		c := f.confs[r]
		if c.Before == nil {
			continue
		}
		b, err := findBlock(c.Before)
		if err != nil {
			errs = append(errs, inFile(c.Path, err))
			continue
		}
		c.takeBack(b.cut(c.Before), b.origin, nil)
	}
	if !slices.ContainsFunc(Runtimes(), f.hasBlock) {
		errs = append(errs, p.unsetPolicy(f.own))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, nil
}

// takeBack plans to restore the former content, or to remove the file if it was made
// for the block and otherwise has only the content that it was made with.
func (c *Change) takeBack(former []byte, origin Origin, made []byte) {
	c.After = former
	if origin.File && bytes.Equal(former, made) {
		c.After = nil
		c.rmDir = origin.Dir
	}
}

func (p *Plan) unsetPolicy(c *Change) error {
	if c.Before == nil {
		return nil
	}
	b, err := findBlock(c.Before)
	if err != nil {
		return inFile(c.Path, err)
	}
	former, undone, err := UnsetPolicy(c.Before)
	if err != nil {
		return inFile(c.Path, err)
	}
	switch {
	case undone:
		c.takeBack(former, b.origin, DefaultConfig)
	case b.found:
		p.Warnings = append(p.Warnings, Warning{File: c.Path, Line: b.line, Text: "the policy was changed since it was installed: left as it is"})
	}
	return nil
}

// Apply carries out the plan. It writes all new files beside the old ones before it
// puts the first one in its place, so that a full disk or a read-only file system
// changes nothing.
func (p *Plan) Apply() error {
	var todo []*Change
	for _, c := range p.Changes {
		if c.changed() {
			todo = append(todo, c)
		}
	}
	staged := make([]*safefile.Staged, len(todo)) // nil where a file is removed
	committed := 0
	defer func() {
		for i := committed; i < len(todo); i++ {
			staged[i].Discard()
			if staged[i] != nil && todo[i].makeDir {
				_ = os.Remove(filepath.Dir(todo[i].target)) // only if it is empty
			}
		}
	}()
	for i, c := range todo {
		if c.After == nil {
			continue
		}
		s, err := c.stage()
		if err != nil {
			return fmt.Errorf("nothing changed: %w", err)
		}
		staged[i] = s
	}
	for i, c := range todo {
		if err := c.commit(staged[i]); err != nil {
			return fmt.Errorf("%d of %d files changed: %w", i, len(todo), err)
		}
		committed++
	}
	for _, c := range todo {
		if c.rmDir {
			err := os.Remove(filepath.Dir(c.target))
			if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) { // ErrExist: not empty
				return fmt.Errorf("remove the directory that install made: %w", err)
			}
		}
	}
	return nil
}
