/* global Hls, shaka, dashjs */
// Each player as its own documentation starts it, with as little set as can be; `load` answers with what it found.
const video = document.querySelector("video");
const errors = [];

const players = {
  "hls.js": (url) =>
    new Promise((resolve) => {
      const hls = new Hls();
      // It also tells of requests that it dropped itself, and of pictures that a busy machine decodes late.
      const { INTERNAL_ABORTED, BUFFER_STALLED_ERROR, BUFFER_NUDGE_ON_STALL } = Hls.ErrorDetails;
      const harmless = [INTERNAL_ABORTED, BUFFER_STALLED_ERROR, BUFFER_NUDGE_ON_STALL];
      hls.on(Hls.Events.ERROR, (_, error) => {
        if (error.fatal || !harmless.includes(error.details)) errors.push(`${error.type}: ${error.details}`);
      });
      // The sounds of the chosen level's group are known when that level is.
      hls.once(Hls.Events.LEVEL_LOADED, () =>
        resolve({
          sounds: hls.audioTracks.map((track) => track.lang),
          texts: hls.subtitleTracks.map((track) => track.lang),
          heights: hls.levels.map((level) => level.height),
          pictures: 0,
          chooseSound: (language) => {
            hls.audioTrack = hls.audioTracks.findIndex((track) => track.lang === language);
          },
          showText: (language) => {
            hls.subtitleDisplay = true;
            hls.subtitleTrack = hls.subtitleTracks.findIndex((track) => track.lang === language);
          },
          chooseHeight: (height) => {
            hls.currentLevel = hls.levels.findIndex((level) => level.height === height);
          },
        }),
      );
      hls.loadSource(url);
      hls.attachMedia(video);
    }),

  shaka: async (url) => {
    const player = new shaka.Player();
    player.addEventListener("error", (event) => errors.push(`shaka ${event.detail.code}`));
    // Its own choice is AV1, of which there is one size.
    player.configure("preferredVideo", [{ codec: "avc1" }]);
    await player.attach(video);
    await player.load(url);
    const find = (tracks, language) => tracks.find((track) => track.language === language);
    return {
      sounds: player.getAudioTracks().map((track) => track.language),
      texts: player.getTextTracks().map((track) => track.language),
      heights: player.getVideoTracks().map((track) => track.height),
      pictures: player.getImageTracks().length,
      chooseSound: (language) => player.selectAudioTrack(find(player.getAudioTracks(), language)),
      showText: (language) => player.selectTextTrack(find(player.getTextTracks(), language)),
      tile: async (moment) => {
        const found = await player.getThumbnails(player.getImageTracks()[0].id, moment);
        return { url: found.uris[0], x: found.positionX, y: found.positionY, width: found.width, height: found.height };
      },
      chooseHeight: (height) => {
        player.configure("abr.enabled", false);
        player.selectVideoTrack(player.getVideoTracks().find((track) => track.height === height), true);
      },
    };
  },

  "dash.js": (url) =>
    new Promise((resolve) => {
      const player = dashjs.MediaPlayer().create();
      player.on(dashjs.MediaPlayer.events.ERROR, (event) => errors.push(`dash.js ${event.error.code}`));
      const find = (kind, language) => player.getTracksFor(kind).find((track) => track.lang === language);
      player.on(dashjs.MediaPlayer.events.STREAM_INITIALIZED, () =>
        resolve({
          sounds: player.getTracksFor("audio").map((track) => track.lang),
          texts: player.getTracksFor("text").map((track) => track.lang),
          heights: player.getRepresentationsByType("video").map((one) => one.height),
          pictures: player.getTracksFor("image").length,
          chooseSound: (language) => player.setCurrentTrack(find("audio", language)),
          showText: (language) => {
            player.enableText(true);
            player.setTextTrack(player.getTracksFor("text").indexOf(find("text", language)));
          },
          tile: (moment) => new Promise((done) => player.provideThumbnail(moment, done)),
          chooseHeight: (height) => {
            player.updateSettings({ streaming: { abr: { autoSwitchBitrate: { video: false } } } });
            const found = player.getRepresentationsByType("video").find((one) => one.height === height);
            player.setRepresentationForTypeById("video", found.id, true);
          },
        }),
      );
      // Its own choice is AV1, of which there is one size.
      player.setCustomInitialTrackSelectionFunction((tracks) => tracks.filter((track) => !track.codec?.includes("av01")));
      player.initialize(video, url, true);
    }),
};

const context = new AudioContext();
const analyser = new AnalyserNode(context, { fftSize: 4096 });
context.createMediaElementSource(video).connect(analyser).connect(context.destination);

window.errors = errors;
/** The loudest frequency of the sound that is played now, in hertz; 0 while nothing is heard. */
window.heard = () => {
  const levels = new Uint8Array(analyser.frequencyBinCount);
  analyser.getByteFrequencyData(levels);
  const loudest = levels.indexOf(Math.max(...levels));
  return (loudest * context.sampleRate) / analyser.fftSize;
};
/** The lines of text on the screen. */
window.lines = () =>
  [...video.textTracks]
    .filter((track) => track.mode === "showing")
    .flatMap((track) => [...(track.activeCues ?? [])].map((cue) => cue.text));
/** The small picture of a moment, as a canvas. */
window.tile = async (moment) => {
  const { url, x, y, width, height } = await window.player.tile(moment);
  const sheet = await createImageBitmap(await (await fetch(url)).blob(), x, y, width, height);
  const canvas = document.body.appendChild(Object.assign(document.createElement("canvas"), { width, height }));
  canvas.getContext("2d").drawImage(sheet, 0, 0);
  return canvas;
};
window.load = async (name, url) => {
  window.player = await players[name](url);
  await video.play();
  const { sounds, texts, heights, pictures } = window.player;
  return { sounds, texts, heights, pictures };
};
