package main

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"log"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

const service = "kino.playback.v1.PlaybackService"

// serve answers Play with messages encoded beforehand: what an engineer would write to be fast, and no more
// (no lease, no accounting).
func serve(address, messagesPath, certificate, key string) {
	messages := load(messagesPath)
	handler := func(_ any, stream grpc.ServerStream) error {
		var request received
		if err := stream.RecvMsg(&request); err != nil {
			return err
		}
		for i := range messages {
			if err := stream.SendMsg(&messages[i]); err != nil {
				return err
			}
		}
		return nil
	}
	encoding.RegisterCodecV2(raw{})
	options := []grpc.ServerOption{grpc.ForceServerCodecV2(codec{})}
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(certificate, key)
		check(err)
		options = append(options, grpc.Creds(credentials.NewServerTLSFromCert(&pair)))
	}
	server := grpc.NewServer(options...)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Streams:     []grpc.StreamDesc{{StreamName: "Play", Handler: handler, ServerStreams: true}},
	}, nil)
	healthy := health.NewServer()
	healthy.SetServingStatus(service, grpc_health_v1.HealthCheckResponse_SERVING)
	grpc_health_v1.RegisterHealthServer(server, healthy)
	listener, err := net.Listen("tcp", address)
	check(err)
	log.Fatal(server.Serve(listener))
}

// load reads messages, each behind its length in eight bytes.
func load(path string) [][]byte {
	file, err := os.Open(path)
	check(err)
	defer file.Close()
	var messages [][]byte
	for {
		var size uint64
		if err := binary.Read(file, binary.BigEndian, &size); err == io.EOF {
			return messages
		} else {
			check(err)
		}
		message := make([]byte, size)
		_, err := io.ReadFull(file, message)
		check(err)
		messages = append(messages, message)
	}
}
