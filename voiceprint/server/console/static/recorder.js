// Samples of the microphone as 16-bit integers, a tenth of a second at a time, with their level.

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.samples = new Int16Array(Math.round(sampleRate / 10));
    this.count = 0;
    this.power = 0;
  }

  process([[channel]]) {
    for (const value of channel ?? []) {
      const limited = Math.max(-1, Math.min(1, value));
      this.power += limited * limited;
      this.samples[this.count++] = Math.round(limited * 32767);
      if (this.count === this.samples.length) {
        const level = 10 * Math.log10(this.power / this.count + 1e-6);
        this.port.postMessage({ level, samples: this.samples.slice().buffer });
        this.count = 0;
        this.power = 0;
      }
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
