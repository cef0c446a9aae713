package netns

// Mounted returns a path at which the namespace is mounted, such as
// /run/netns/NAME, or "" if there is none in this mount namespace. Unlike a
// path below /proc/PID it outlives every process.
func Mounted(id ID) string {
	points, err := nsfsMounts()
	if err != nil {
		return ""
	}
	for _, point := range points {
		if got, err := statID(point); err == nil && got == id {
			return point
		}
	}
	return ""
}
