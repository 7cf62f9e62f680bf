package main

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// codec sends our own bytes as they are, and everything else (health checks) as protobuf.
type codec struct{ raw }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if message, ok := v.(proto.Message); ok {
		data, err := proto.Marshal(message)
		return mem.BufferSlice{mem.SliceBuffer(data)}, err
	}
	return c.raw.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if message, ok := v.(proto.Message); ok {
		return proto.Unmarshal(data.Materialize(), message)
	}
	return c.raw.Unmarshal(data, v)
}

var _ encoding.CodecV2 = codec{}
