package main

import "google.golang.org/grpc/encoding"
import "google.golang.org/grpc/mem"

// raw passes messages through as the bytes they are: neither side of the benchmark pays for protobuf.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	message := v.(*received)
	message.bytes = int64(data.Len())
	if message.keep {
		message.data = data.Materialize()
	}
	return nil
}

// received is what arrived of one message: its size, and its bytes where somebody wants them.
type received struct {
	bytes int64
	data  []byte
	keep  bool
}

var _ encoding.CodecV2 = raw{}
