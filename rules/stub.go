package rules

import (
	"errors"

	"github.com/criu-netfreeze/criu-netfreeze/netns"
)

func openIPT(ns *netns.Isolated, k Kind) (Freezer, error) { return nil, errors.ErrUnsupported }
func openNFTConns(ns *netns.Namespace, owner string) (ConnFreezer, error) {
	return nil, errors.ErrUnsupported
}
func openIPTConns(ns *netns.Namespace, k Kind, owner string) (ConnFreezer, error) {
	return nil, errors.ErrUnsupported
}
func ThawAll(ns *netns.Isolated) error {
	f, err := openNFT(ns)
	if err != nil {
		return err
	}
	return errors.Join(f.Thaw(), f.Close())
}
func Look(ns *netns.Namespace) (State, error) {
	c, err := dialNFT(ns)
	if err != nil {
		return State{}, err
	}
	defer c.Close()
	return c.state()
}
