// SPDX-License-Identifier: Apache-2.0

package netns

// All opens every network namespace that is mounted somewhere or has a process,
// each one once. The caller closes them. It leaves out those that vanish meanwhile
// and those that only an open file descriptor keeps alive.
func All() ([]*Namespace, error) {
	points, err := nsfsMounts()
	if err != nil {
		return nil, err
	}
	seen := map[ID]bool{}
	var all []*Namespace
	for _, path := range append(points, candidates()...) {
		id, err := statID(path)
		if err != nil || seen[id] {
			continue
		}
		if n, err := OpenPath(path); err == nil {
			seen[n.ID()] = true
			all = append(all, n)
		}
	}
	return all, nil
}
