// What MP4Box.js finds in segments: reads [{init, segments}] (addresses) from standard input, answers for each in JSON.
import { createFile, MP4BoxBuffer } from "mp4box";
import { text } from "node:stream/consumers";

async function bytes(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${answer.status} ${address}`);
  return answer.arrayBuffer();
}

/** One segment after the init segment that all of its rendition share. */
function read(init, segment) {
  const file = createFile();
  let track;
  file.onReady = (info) => ([track] = info.tracks);
  file.appendBuffer(MP4BoxBuffer.fromArrayBuffer(init, 0));
  file.appendBuffer(MP4BoxBuffer.fromArrayBuffer(segment, init.byteLength));
  file.flush();
  const samples = file.getTrackSamplesInfo(track.id);
  // Presentation times are those of the samples less the one that the edit list begins at.
  const shift = track.edits?.[0].media_time ?? 0;
  return {
    boxes: file.boxes.map((box) => box.type).join(" "),
    codecs: track.codec,
    timescale: track.timescale,
    width: track.video?.width,
    height: track.video?.height,
    decode: samples[0].dts,
    start: Math.min(...samples.map((sample) => sample.cts)) - shift,
    duration: samples.reduce((sum, sample) => sum + sample.duration, 0),
    sync: samples[0].is_sync,
  };
}

const found = [];
for (const { init, segments } of JSON.parse(await text(process.stdin))) {
  const head = await bytes(init);
  found.push(await Promise.all(segments.map(async (segment) => read(head.slice(0), await bytes(segment)))));
}
console.log(JSON.stringify(found));
