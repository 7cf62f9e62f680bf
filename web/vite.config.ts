import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants } from "node:zlib";
import { defineConfig } from "vitest/config";
import type { Plugin } from "vite";

const OUT = "../services/page/dist";

/** Ready-made `.br` beside each file: Envoy's compressor cuts unary bodies short, so nothing is compressed on the way. */
const brotli: Plugin = {
  name: "kino-brotli",
  apply: "build",
  closeBundle() {
    for (const file of readdirSync(OUT, { recursive: true, withFileTypes: true })) {
      if (!file.isFile() || !/\.(js|css|html|svg)$/.test(file.name)) continue;
      const path = join(file.parentPath, file.name);
      const raw = readFileSync(path);
      const small = brotliCompressSync(raw, {
        params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: raw.length },
      });
      if (small.length < raw.length) writeFileSync(`${path}.br`, small);
    }
  },
};

/** The rules of protovalidate are checked by the server; their descriptors would be a fifth of the page. */
const withoutValidate: Plugin = {
  name: "kino-without-validate",
  enforce: "pre",
  load: (id) =>
    id.endsWith("/buf/validate/validate_pb.js")
      ? `import { fileDesc } from "@bufbuild/protobuf/codegenv2";
         // FileDescriptorProto { name: "buf/validate/validate.proto", package: "buf.validate" }
         export const file_buf_validate_validate = fileDesc("${Buffer.from("\n\x1bbuf/validate/validate.proto\x12\x0cbuf.validate").toString("base64")}");`
      : undefined,
};

export default defineConfig({
  plugins: [withoutValidate, brotli],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: OUT,
    emptyOutDir: true,
    target: "es2022",
    // Shaka is one file of 400 kB, loaded when a film is looked at.
    chunkSizeWarningLimit: 600,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  // `npm run dev` against a suite that runs on the usual port.
  server: { proxy: { "^/(kino\\.|v1/)": process.env["KINO_GATEWAY"] ?? "http://127.0.0.1:8080" } },
  test: { include: ["tests/**/*.test.ts"] },
});
