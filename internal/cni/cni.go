// SPDX-License-Identifier: Apache-2.0

// Package cni is netfreeze-cni, a CNI plugin that freezes the network namespace
// of a pod which is about to be restored, before its address goes live; the
// restore adopts the freeze. It configures no network and passes on what the
// plugins before it did. All other pods it leaves alone.
//
// It follows version 1.1 of the specification (containernetworking/cni, SPEC.md)
// and the versions before it, back to 0.3.0. It stands best as the first
// plugin of the list: the others then set up a namespace that is frozen
// already, and not one packet gets in. Behind them it works as well, but for
// the moment in which the address is live already; there it also sees
// addresses that a plugin chose, and not only those that the runtime asked for.
package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/expect"
	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// program is the plugin's type in a network configuration.
const program = "netfreeze-cni"

// Error codes of this plugin's own; the specification leaves those from 100 on.
const (
	errNotFrozen uint = 100 // a pod that is to be frozen could not be, or is no longer
	errRecords   uint = 101 // the state directory cannot be read or changed
)

// Main does what CNI_COMMAND asks for, and exits with 1 after an error, which
// is printed as the specification wants it.
func Main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Check: check, Del: del, GC: gc, Status: status},
		version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"),
		program+": freezes the network of pods that are about to be restored by CRIU")
}

// add freezes the namespace if the pod is expected or configured.
func add(args *skel.CmdArgs) error {
	c, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	n, err := newcomer(args, c)
	if err != nil {
		return err
	}
	why, err := expect.Expected(n, c.Pods)
	if err != nil {
		warn(err)
	}
	if why != nil {
		if err := freezeNewborn(args, c, n, why); err != nil {
			return types.NewError(errNotFrozen, fmt.Sprintf("cannot freeze the network namespace %s (%s): %v", args.Netns, why, code.Any(err)),
				"without it, peers could get a reset before the restore (netfreeze expect --list shows what is expected)")
		}
	}
	return pass(c)
}

func freezeNewborn(args *skel.CmdArgs, c *conf, n expect.Newcomer, why *expect.Reason) error {
	ns, err := netns.OpenPath(args.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	_, err = expect.Newborn(ns, n, why, program, record.Record{
		ID: recordID(args.ContainerID, args.IfName), Network: c.Name,
	})
	return err
}

// recordID names the record of an attachment.
func recordID(container, ifname string) string {
	return fmt.Sprintf("cni-%s-%s", container, ifname)
}

// pass prints the result of the plugins before this one, to the byte; as the
// first one of a list it prints that it has added nothing.
func pass(c *conf) error {
	result := []byte(c.PrevResult)
	if !present(c.PrevResult) {
		var err error
		result, err = json.Marshal(map[string]string{"cniVersion": c.CNIVersion})
		if err != nil {
			return err
		}
	}
	if _, err := os.Stdout.Write(result); err != nil {
		return types.NewError(types.ErrIOFailure, fmt.Sprintf("print the result: %v", code.Any(err)), "")
	}
	return nil
}

// check makes sure that a freeze which waits for its restore is in force. One
// that a restore has adopted is that restore's affair.
func check(args *skel.CmdArgs) error {
	if _, err := parseConf(args.StdinData); err != nil {
		return err
	}
	frozen, err := inForce(args)
	if err != nil {
		return types.NewError(errRecords, code.Any(err).Error(), "")
	}
	if !frozen {
		return types.NewError(errNotFrozen, fmt.Sprintf("the network namespace %s was frozen for a restore and is no longer [%s]", args.Netns, code.NoFreeze),
			"the rules were removed by something else than a restore or netfreeze thaw")
	}
	return nil
}

// inForce is false if there should be a freeze and is none.
func inForce(args *skel.CmdArgs) (bool, error) {
	if r, err := waiting(args); r == nil {
		return true, err
	}
	ns, err := netns.OpenPath(args.Netns)
	if err != nil {
		return false, err
	}
	defer ns.Close()
	return freeze.New(rules.Kernel{}).InForce(ns, recordID(args.ContainerID, args.IfName))
}

// waiting returns the attachment's record if its freeze waits for a restore.
func waiting(args *skel.CmdArgs) (*record.Record, error) {
	r, err := record.Load(recordID(args.ContainerID, args.IfName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil || !r.Waits() {
		return nil, err
	}
	return r, nil
}

// del forgets the freeze. The rules stay: they go with the namespace, and
// until its interfaces have gone it must not answer any peer.
func del(args *skel.CmdArgs) error {
	r := record.Record{ID: recordID(args.ContainerID, args.IfName)}
	if err := r.Remove(); err != nil {
		return types.NewError(errRecords, code.Any(err).Error(), "")
	}
	return nil
}

// gc forgets the freezes of attachments to this network that are no more.
func gc(args *skel.CmdArgs) error {
	c, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	valid := map[string]bool{}
	for _, a := range c.ValidAttachments {
		valid[recordID(a.ContainerID, a.IfName)] = true
	}
	all, err := record.All()
	errs := []error{err}
	for _, r := range all {
		if r.Network == c.Name && !valid[r.ID] {
			errs = append(errs, r.Remove())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return types.NewError(errRecords, code.Any(err).Error(), "")
	}
	return nil
}

// status says whether an ADD could work now.
func status(args *skel.CmdArgs) error {
	if _, err := parseConf(args.StdinData); err != nil {
		return err
	}
	if err := record.MakeDir(); err != nil {
		return types.NewError(types.ErrPluginNotAvailable, fmt.Sprintf("%s cannot freeze anything: %v", program, err), "")
	}
	return nil
}

// warn writes to the runtime's log.
func warn(err error) {
	fmt.Fprintf(os.Stderr, "%s %s: %v\n", time.Now().Format(time.RFC3339), program, err)
}
