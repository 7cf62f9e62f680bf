package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// One reader for all servers, so that they are compared by what they do, not by who reads.
type plan struct {
	// grpc, h2, h1
	Protocol string `json:"protocol"`
	Address  string `json:"address"`
	TLS      bool   `json:"tls"`
	// Of grpc: one Play request per stream, in base64. Of HTTP: the paths of a film's segments, in order.
	Requests []string `json:"requests"`
	Streams  int      `json:"streams"`
	// HTTP/2 windows of a stream and of a connection; 4 MiB as players are told to set them.
	StreamWindow int32 `json:"stream_window"`
	Connections  int   `json:"connections"`
	// Bytes per second of a viewer; 0: as fast as they come.
	Rate float64 `json:"rate"`
	// Seconds of a viewer after which it stops.
	Seconds float64 `json:"seconds"`
	// Stop at the first media message (grpc) or byte, and tell how long it took.
	First bool `json:"first"`
	// Wait so long before the next one.
	RestMs float64 `json:"rest_ms"`
	// Read this many messages, then nothing for `Seconds`.
	Stall int `json:"stall"`
}

type result struct {
	Bytes    int64     `json:"bytes"`
	Seconds  float64   `json:"seconds"`
	Stalled  int       `json:"stalled"`
	Started  int       `json:"started"`
	Failed   int       `json:"failed"`
	Error    string    `json:"error"`
	FirstsMs []float64 `json:"firsts_ms"`
}

const startUpSeconds = 10

// viewer keeps the account of one playback buffer.
type viewer struct {
	plan    *plan
	began   time.Time
	bytes   int64
	stalled bool
}

// took notes bytes, and waits while more than the start-up's worth is buffered. False when the time is over.
func (v *viewer) took(n int64) bool {
	v.bytes += n
	if v.plan.Rate == 0 {
		return true
	}
	elapsed := time.Since(v.began).Seconds()
	if played := elapsed - startUpSeconds; played > 0 && float64(v.bytes) < played*v.plan.Rate {
		v.stalled = true
	}
	ahead := float64(v.bytes)/v.plan.Rate - elapsed
	if ahead > 0 {
		time.Sleep(time.Duration(ahead * float64(time.Second)))
	}
	return time.Since(v.began).Seconds() < v.plan.Seconds
}

func read(p *plan) result {
	var mutex sync.Mutex
	var wait sync.WaitGroup
	var out result
	open := opener(p)
	begin := time.Now()
	for i := range p.Streams {
		wait.Add(1)
		go func() {
			defer wait.Done()
			v := viewer{plan: p, began: time.Now()}
			first, err := open(i, &v)
			mutex.Lock()
			defer mutex.Unlock()
			out.Bytes += v.bytes
			if v.stalled {
				out.Stalled++
			}
			if first > 0 {
				out.Started++
				out.FirstsMs = append(out.FirstsMs, first.Seconds()*1000)
			}
			if err != nil {
				out.Failed++
				out.Error = err.Error()
			}
		}()
		if p.First {
			wait.Wait()
			// What the server began to send ahead is no part of the next wait.
			time.Sleep(time.Duration(p.RestMs * float64(time.Millisecond)))
		}
	}
	wait.Wait()
	out.Seconds = time.Since(begin).Seconds()
	sort.Float64s(out.FirstsMs)
	if !p.First && p.Rate == 0 && len(out.FirstsMs) > 20 {
		out.FirstsMs = out.FirstsMs[:20]
	}
	return out
}

func opener(p *plan) func(int, *viewer) (time.Duration, error) {
	if p.Protocol == "grpc" {
		return playOver(p)
	}
	return fetchOver(p)
}

func playOver(p *plan) func(int, *viewer) (time.Duration, error) {
	var options []grpc.DialOption
	options = append(options,
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(8<<20)),
		grpc.WithInitialWindowSize(p.StreamWindow),
		grpc.WithInitialConnWindowSize(int32(min(int64(p.StreamWindow)*int64(p.Streams/p.Connections+1), 1<<30))))
	secure := insecure.NewCredentials()
	if p.TLS {
		secure = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})
	}
	options = append(options, grpc.WithTransportCredentials(secure))
	var channels []*grpc.ClientConn
	for range p.Connections {
		channel, err := grpc.NewClient("passthrough:///"+p.Address, options...)
		check(err)
		channel.Connect()
		channels = append(channels, channel)
	}
	return func(i int, v *viewer) (time.Duration, error) {
		request, err := base64.StdEncoding.DecodeString(p.Requests[i%len(p.Requests)])
		check(err)
		context, cancel := context.WithCancel(context.Background())
		defer cancel()
		began := time.Now()
		description := &grpc.StreamDesc{ServerStreams: true}
		stream, err := channels[i%len(channels)].NewStream(context, description, "/"+service+"/Play")
		if err != nil {
			return 0, err
		}
		if err := stream.SendMsg(&request); err != nil {
			return 0, err
		}
		if err := stream.CloseSend(); err != nil {
			return 0, err
		}
		var first time.Duration
		for count := 0; ; count++ {
			var message received
			if err := stream.RecvMsg(&message); err == io.EOF {
				return first, nil
			} else if err != nil {
				return first, err
			}
			// The first message is the header.
			if count == 1 {
				first = time.Since(began)
				if p.First {
					return first, nil
				}
			}
			if p.Stall > 0 && count == p.Stall {
				time.Sleep(time.Duration(p.Seconds * float64(time.Second)))
				return first, nil
			}
			if !v.took(message.bytes) {
				return first, nil
			}
		}
	}
}

func fetchOver(p *plan) func(int, *viewer) (time.Duration, error) {
	scheme := "http"
	if p.TLS {
		scheme = "https"
	}
	clients := make([]*http.Client, p.Connections)
	for i := range clients {
		clients[i] = &http.Client{Transport: transport(p)}
	}
	return func(i int, v *viewer) (time.Duration, error) {
		var first time.Duration
		buffer := make([]byte, 1<<20)
		for _, path := range p.Requests {
			began := time.Now()
			answer, err := clients[i%len(clients)].Get(scheme + "://" + p.Address + path)
			if err != nil {
				return first, err
			}
			if answer.StatusCode != 200 {
				return first, fmt.Errorf("%s: %s", path, answer.Status)
			}
			for {
				n, err := answer.Body.Read(buffer)
				if n > 0 && first == 0 {
					first = time.Since(began)
				}
				if !v.took(int64(n)) || (p.First && n > 0) {
					answer.Body.Close()
					return first, nil
				}
				if err == io.EOF {
					break
				} else if err != nil {
					return first, err
				}
			}
			answer.Body.Close()
		}
		return first, nil
	}
}

func transport(p *plan) http.RoundTripper {
	insecureTLS := &tls.Config{InsecureSkipVerify: true}
	if p.Protocol == "h1" {
		return &http.Transport{TLSClientConfig: insecureTLS, MaxConnsPerHost: 1, ReadBufferSize: 256 << 10}
	}
	// x/net's own transport: its windows are what the standard library gives every Go program (4 MiB a stream).
	made := &http2.Transport{TLSClientConfig: insecureTLS, AllowHTTP: !p.TLS, MaxReadFrameSize: 1 << 20}
	if !p.TLS {
		made.DialTLSContext = func(_ context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
			return net.Dial(network, address)
		}
	}
	return made
}

func readPlans() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var p plan
		check(json.Unmarshal(lines.Bytes(), &p))
		out, err := json.Marshal(read(&p))
		check(err)
		fmt.Println(string(out))
	}
}
