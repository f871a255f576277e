// Noise as a placeholder for unfinished videos. Drawn small; the style sheet enlarges it without smoothing.

const SHORT_SIDE = 20;

/** Grey noise with the aspect ratio of the video. `amount` from 0 to 1; the same seed gives the same noise. */
export function paintNoise(canvas, width, height, seed, amount) {
  const scale = SHORT_SIDE / Math.min(width, height);
  const random = generator(seed);
  paint(canvas, Math.round(width * scale), Math.round(height * scale), () => [128, 124, 116, random() * amount * 190]);
}

/** A frame between noise and picture for the empty gallery; `done` from 0 to 1. */
export function paintEmerging(canvas, done) {
  const random = generator(Math.round(done * 100) + 1);
  const size = 28;
  const [centre, radius] = [size * (0.3 + 0.4 * done), size * 0.2];
  paint(canvas, size, size, (x, y) => {
    const inside = Math.hypot(x + 0.5 - centre, y + 0.5 - size / 2) < radius;
    const grain = random() * (1 - done) * 170;
    return inside && random() < done * 1.15 ? [217, 86, 43, 80 + 175 * done] : [128, 124, 116, grain];
  });
}

function paint(canvas, width, height, colour) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i += 1) image.data.set(colour(i % width, Math.floor(i / width)), 4 * i);
  context.putImageData(image, 0, 0);
}

// mulberry32: small, fast, and sufficient for decoration.
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
