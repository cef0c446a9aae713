package netns

// All opens every live network namespace that is mounted somewhere or has a
// process, each once. The caller closes them. What vanishes meanwhile is left
// out, and so is what is kept alive by an open descriptor alone.
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
