package rules

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/criu-netfreeze/criu-netfreeze/netns"
)

// CRIULocks returns the names of the nftables tables with which CRIU itself has
// locked the network or single connections: "CRIU-" and the run's id
// (nftables_get_table in criu/netfilter.c). A CRIU that is killed leaves its
// table behind.
func CRIULocks(ns *netns.Namespace) ([]string, error) {
	c, err := dialNFT(ns)
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // only reading
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list the nftables tables of %s: %w", ns, err)
	}
	var names []string
	for _, t := range tables {
		if strings.HasPrefix(t.Name, "CRIU-") {
			names = append(names, t.Name)
		}
	}
	return names, nil
}

// RemoveCRIULocks removes the tables with which CRIU has locked the network,
// except those named in keep, which belong to another CRIU.
func RemoveCRIULocks(ns *netns.Namespace, keep []string) error {
	names, err := CRIULocks(ns)
	if err != nil {
		return err
	}
	c, err := dialNFT(ns)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // the removal has its own error
	var errs []error
	for _, n := range names {
		if !slices.Contains(keep, n) {
			errs = append(errs, c.remove(n))
		}
	}
	return errors.Join(errs...)
}
