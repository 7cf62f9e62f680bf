import { sha256 } from "@noble/hashes/sha2.js";

export type HashReply =
  | { readonly kind: "progress"; readonly bytes: number }
  | { readonly kind: "done"; readonly sha256: Uint8Array }
  | { readonly kind: "failed"; readonly message: string };

/** Sums a whole file while it is sent: WebCrypto can't do that in pieces, and the page must not stand still meanwhile. */
self.onmessage = async (event: MessageEvent<File>) => {
  const reply = (message: HashReply) => postMessage(message);
  try {
    const hash = sha256.create();
    const reader = event.data.stream().getReader();
    for (let bytes = 0, told = 0; ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      hash.update(value);
      bytes += value.length;
      if (bytes - told >= 16 * 1024 * 1024) reply({ kind: "progress", bytes: (told = bytes) });
    }
    reply({ kind: "done", sha256: hash.digest() });
  } catch (error) {
    reply({ kind: "failed", message: String(error) });
  }
};
