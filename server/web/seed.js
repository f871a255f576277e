// Seeds of videos.

const MAX_SEED = 2 ** 31 - 1;

export function randomSeed() {
  return Math.floor(Math.random() * MAX_SEED);
}
