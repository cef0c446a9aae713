package main
func (r *results) plots(files map[string]string) error { return nil }
func (r *results) page(files map[string]string) (string, error) { return "", nil }
