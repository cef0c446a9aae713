// Command empty is the least that a script in Go costs: the runtime's start and
// end.
package main

func main() {}
