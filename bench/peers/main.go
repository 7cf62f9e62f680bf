// The other side of `kino bench playback`: a gRPC server to compare with, and the one reader of all servers.
package main

import (
	"log"
	"os"
)

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "read":
		readPlans()
	case len(os.Args) == 4 && os.Args[1] == "serve":
		serve(os.Args[2], os.Args[3], "", "")
	case len(os.Args) == 6 && os.Args[1] == "serve":
		serve(os.Args[2], os.Args[3], os.Args[4], os.Args[5])
	default:
		log.Fatal("usage: peers read | peers serve ADDRESS MESSAGES [CERTIFICATE KEY]")
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
