/**
 * Number of samples and first decode time of a run of CMAF fragments of one track (ISO/IEC 14496-12, 8.8).
 * @param {Buffer} bytes whole boxes
 * @returns {{fragments: number, samples: number, firstDecodeTicks: bigint | null}}
 */
export function countSamples(bytes) {
  const total = { fragments: 0, samples: 0, firstDecodeTicks: /** @type {bigint | null} */ (null) };
  for (const { type, body } of boxes(bytes)) {
    if (type !== "moof") continue;
    total.fragments += 1;
    for (const part of boxes(body).filter((box) => box.type === "traf").flatMap((traf) => boxes(traf.body))) {
      if (part.type === "trun") total.samples += part.body.readUInt32BE(4);
      // `tfdt` version 1 holds 64 bits; version 0 holds 32.
      if (part.type === "tfdt") {
        const long = part.body.readUInt8(0) === 1;
        total.firstDecodeTicks ??= long ? part.body.readBigUInt64BE(4) : BigInt(part.body.readUInt32BE(4));
      }
    }
  }
  return total;
}

/**
 * @param {Buffer} bytes
 * @returns {{type: string, body: Buffer}[]}
 */
function boxes(bytes) {
  const found = [];
  for (let at = 0; at < bytes.length; ) {
    const short = bytes.readUInt32BE(at);
    const header = short === 1 ? 16 : 8;
    const size = short === 1 ? Number(bytes.readBigUInt64BE(at + 8)) : short;
    if (size < header || at + size > bytes.length) throw new Error(`a box at byte ${at} of ${bytes.length} is cut off`);
    found.push({ type: bytes.toString("latin1", at + 4, at + 8), body: bytes.subarray(at + header, at + size) });
    at += size;
  }
  return found;
}
