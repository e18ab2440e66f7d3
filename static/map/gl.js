// Draws the map by WebGL 2: one call for all points, whose pictures come from two stacks of textures, the atlases and the details.

import * as twgl from "../vendor/twgl/twgl.js";
import { NONE } from "./scene.js";
import { FRAGMENT, VERTEX } from "./shaders.js";

const ATLAS_SIDE = 2048;
const DETAIL_SIDE = 192;
const DISC = 5; // the largest radius of a point, in CSS pixels

/** Whether the processor does the work of a graphics card here. Asked of a canvas of its own: one that has a context keeps it. */
function isSlow() {
  const gl = document.createElement("canvas").getContext("webgl2", { failIfMajorPerformanceCaveat: true });
  const about = gl?.getExtension("WEBGL_debug_renderer_info");
  const slow = !gl || /swiftshader|llvmpipe|softpipe|basic render/i.test(gl.getParameter(about?.UNMASKED_RENDERER_WEBGL ?? gl.RENDERER));
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return slow;
}

export class Drawing {
  kind = "webgl";
  slots = 256;

  /** Returns null where there is no WebGL 2, or only one that the processor works out: the canvas is faster then. */
  static over(canvas, scene, { evenSlow }) {
    const gl = evenSlow || !isSlow() ? canvas.getContext("webgl2", { antialias: false, powerPreference: "high-performance" }) : null;
    return gl && new Drawing(gl, scene);
  }

  constructor(gl, scene) {
    this.gl = gl;
    this.scene = scene;
    this.program = twgl.createProgramInfo(gl, [VERTEX, FRAGMENT]);
    this.slotOf = new Uint16Array(scene.count).fill(NONE);
    const column = (data, numComponents, normalize = false) => ({ data, numComponents, normalize });
    this.points = twgl.createBufferInfoFromArrays(gl, {
      a_from: column(scene.before.places, 2, true),
      a_to: column(scene.layout.places, 2, true),
      a_colour: column(new Uint8Array(3 * scene.count), 3, true),
      a_state: column(scene.states, 1),
      a_cell: column(scene.cells, 1),
      a_slot: column(this.slotOf, 1),
      a_shape: column(scene.shapes, 1),
    });
    this.most = gl.getParameter(gl.ALIASED_POINT_SIZE_RANGE)[1];
    this.ready = 0;
    this.details = this.#stack(DETAIL_SIDE, this.slots, 1);
    this.atlases = this.#stack(1, 1, 1);
  }

  #stack(side, depth, levels) {
    const { gl } = this;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, texture);
    gl.texStorage3D(gl.TEXTURE_2D_ARRAY, levels, gl.RGBA8, side, side, depth);
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_MIN_FILTER, levels > 1 ? gl.LINEAR_MIPMAP_LINEAR : gl.LINEAR);
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    return texture;
  }

  #fill(texture, layer, side, bitmap) {
    const { gl } = this;
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, texture);
    gl.texSubImage3D(gl.TEXTURE_2D_ARRAY, 0, 0, 0, layer, side, side, 1, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  }

  #send(name, data) {
    twgl.setAttribInfoBufferFromArray(this.gl, this.points.attribs[name], data);
  }

  prepareAtlases(count, cell) {
    this.columns = ATLAS_SIDE / cell;
    this.cell = cell;
    this.atlases = this.#stack(ATLAS_SIDE, count, 4);
  }

  setAtlas(number, bitmap) {
    this.#fill(this.atlases, number, ATLAS_SIDE, bitmap);
    this.gl.generateMipmap(this.gl.TEXTURE_2D_ARRAY);
    this.ready |= 1 << number;
    bitmap.close();
  }

  /** The sides that a thumbnail is wanted with: slots are squares, and pictures are squeezed into them. */
  get detailSize() {
    return { resizeWidth: DETAIL_SIDE, resizeHeight: DETAIL_SIDE, resizeQuality: "high" };
  }

  setDetail(slot, point, bitmap, before) {
    this.#fill(this.details, slot, DETAIL_SIDE, bitmap);
    bitmap.close();
    if (before >= 0) this.slotOf[before] = NONE;
    this.slotOf[point] = slot;
    this.#send("a_slot", this.slotOf);
  }

  layoutChanged() {
    this.#send("a_from", this.scene.before.places);
    this.#send("a_to", this.scene.layout.places);
  }

  statesChanged() {
    this.#send("a_state", this.scene.states);
  }

  setColours(look) {
    this.look = look;
    this.#send("a_colour", look.points);
  }

  draw(camera, { size, progress, ratio }) {
    const { gl, look } = this;
    const { width, height } = gl.canvas;
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.useProgram(this.program.program);
    twgl.setBuffersAndAttributes(gl, this.program, this.points);
    const [across, down] = [width, height].map((side, axis) => (2 * ratio * camera.scales[axis]) / side);
    twgl.setUniforms(this.program, {
      u_scale: [across, -down],
      u_offset: [-camera.x * across, camera.y * down - ((2 * camera.middle[1] - camera.height) * ratio) / height],
      u_progress: progress,
      u_size: size,
      u_ratio: ratio,
      u_most: this.most,
      u_disc: this.scene.pictures ? 0 : DISC,
      u_columns: this.columns ?? 1,
      u_cell: this.cell ?? 1,
      u_ready: this.ready,
      u_atlases: this.atlases,
      u_details: this.details,
      u_paper: look.paper.map((part) => part / 255),
      u_accent: look.accent.map((part) => part / 255),
    });
    twgl.drawBufferInfo(gl, this.points, gl.POINTS);
  }
}
