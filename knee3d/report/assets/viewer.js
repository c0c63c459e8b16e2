/* Shows the knee: hands what the page holds to NiiVue, and what the switches say. */
(async function () {
  "use strict";
  const { Niivue, NVImage, NVMesh, SLICE_TYPE, SHOW_RENDER, MULTIPLANAR_TYPE } = niivue;
  const SCALE = 1.6; /* of the 3D view: surfaces fill less of it than the image would */
  const scene = JSON.parse(document.getElementById("scene").textContent);
  const message = document.getElementById("no-viewer");
  const canvas = document.getElementById("canvas");
  const form = document.getElementById("switches");
  const place = document.getElementById("place");
  const state = document.documentElement.dataset;

  function fail(words) {
    form.hidden = true;
    message.hidden = false;
    if (words) message.textContent += ` (${words})`;
    state.viewer = "failed";
  }

  if (!document.createElement("canvas").getContext("webgl2")) return fail("");

  const nv = new Niivue({
    backColor: [13 / 255, 15 / 255, 20 / 255, 1],
    crosshairColor: [0.56, 0.76, 0.98, 0.7],
    crosshairWidth: 0.25,
    crosshairWidthUnit: "mm",
    crosshairGap: 3,
    dragAndDropEnabled: false,
    fontColor: [0.85, 0.88, 0.92, 1],
    isOrientCube: true,
    isRadiologicalConvention: true,
    logLevel: "error",
    meshThicknessOn2D: 0,
    multiplanarLayout: MULTIPLANAR_TYPE.GRID,
    multiplanarPadPixels: 6,
    multiplanarShowRender: SHOW_RENDER.ALWAYS,
    sagittalNoseLeft: true,
    scrollRequiresFocus: true, /* else nobody scrolls past it */
    show3Dcrosshair: false,
    showAllOrientationMarkers: true,
    viewModeHotKey: "",
    clipPlaneHotKey: "",
    cycleClipPlaneHotKey: "",
  });
  /* The 3D view is for surfaces: a cloud of noise around them would hide them, and costs most of the drawing. */
  nv.drawImage3D = () => {};
  /* On paper the canvas has no size, and drawing on it would fail. */
  const draw = nv.drawScene.bind(nv);
  nv.drawScene = () => (canvas.clientWidth && canvas.clientHeight ? draw() : "");
  nv.keyDownListener = () => {};
  nv.keyUpListener = () => {};

  function bytes(text) {
    const characters = atob(text);
    const found = new Uint8Array(characters.length);
    for (let i = 0; i < characters.length; i++) found[i] = characters.charCodeAt(i);
    return found.buffer;
  }

  function table(colours, names) {
    const column = (n) => colours.map((colour) => colour[n]);
    return { R: column(0), G: column(1), B: column(2), A: column(3), I: colours.map((_, i) => i), labels: names };
  }

  const checked = (name) => Boolean(form.elements[name] && form.elements[name].checked);
  const chosen = (name) => (form.elements[name] ? form.elements[name].value : "none");

  /* Volumes: the image, the labels on it, and on both the maps that are shown. */
  const maps = [];
  let image, labels;

  async function volume(text, name, options) {
    return NVImage.loadFromBase64({ base64: text, name: `${name}.nii.gz`, ...options });
  }

  function labelColours() {
    const shown = scene.tissues.map((tissue, n) => [...tissue.colour, checked(`tissue-${n + 1}`) ? 255 : 0]);
    return table([[0, 0, 0, 0], ...shown], ["", ...scene.tissues.map((tissue) => tissue.name)]);
  }

  async function loadMap(map, n) {
    const colours = table(map.colours, map.colours.map(() => ""));
    nv.addColormap(`map-${n}`, colours);
    const made = await volume(map.volume, `map-${n}`, { colormap: `map-${n}`, cal_min: 0, cal_max: 255 });
    if (!map.smooth) made.setColormapLabel(colours);
    return made;
  }

  async function loadVolumes() {
    for (const [n, map] of scene.maps.entries()) maps.push(await loadMap(map, n));
    labels = await volume(scene.labels, "labels", {});
    image = await volume(scene.image, "image", { colormap: "gray", cal_min: 0, cal_max: 255 });
  }

  /* Surfaces: of each tissue its own, and its interface coloured by thickness. */
  const surfaces = [];

  async function loadSurfaces() {
    for (const [n, tissue] of scene.tissues.entries()) {
      for (const kind of ["mesh", "thickness"]) {
        if (!tissue[kind]) continue;
        const colour = new Uint8Array([...tissue.colour, 255]);
        const mesh = await NVMesh.readMesh(bytes(tissue[kind]), `${kind}-${n + 1}.mz3`, nv.gl, 1, colour, false);
        mesh.meshShaderIndex = nv.meshShaderNameToNumber("Diffuse"); /* lit from where one looks */
        surfaces.push({ mesh, tissue: n + 1, kind: kind === "mesh" ? "tissue" : "thickness" });
      }
    }
  }

  /* Switches. */
  const layouts = new Map([["together", SLICE_TYPE.MULTIPLANAR], ["solid", SLICE_TYPE.RENDER]]);
  scene.planes.forEach((plane, n) => layouts.set(plane, n));

  function showSurfaces() {
    const wanted = chosen("surfaces");
    for (const one of surfaces) one.mesh.visible = one.kind === wanted && checked(`tissue-${one.tissue}`);
    const bar = document.getElementById("bar-surfaces");
    if (bar) bar.hidden = wanted !== "thickness";
  }

  /* addVolume, addMesh and updateGLVolume would each draw all layers anew, and the image with its gradients is most of it. */
  function showOverlays() {
    labels.setColormapLabel(labelColours());
    maps.forEach((_, n) => { document.getElementById(`bar-map-${n}`).hidden = !checked(`map-${n}`); });
    nv.overlays = [labels, ...maps.filter((_, n) => checked(`map-${n}`))];
    nv.overlays.forEach((overlay) => { overlay._opacity = Number(form.elements[overlay === labels ? "labels" : "maps"].value) / 100; });
    nv.volumes = [image, ...nv.overlays];
    nv.overlays.forEach((overlay, n) => nv.refreshLayers(overlay, n + 1));
  }

  function showFirst() {
    nv.back = image;
    nv.volumes = [image, labels];
    nv.overlays = [labels];
    nv.meshes = surfaces.map((one) => one.mesh);
    labels.setColormapLabel(labelColours());
    nv.updateGLVolume();
    showSurfaces();
    showOverlays();
    showLayout();
    nv.setScale(SCALE);
    nv.setRenderAzimuthElevation(...scene.view);
    nv.scene.crosshairPos = nv.mm2frac(scene.start, 0, true);
    nv.drawScene();
    nv.createOnLocationChange();
  }

  function showLayout() {
    nv.setSliceType(layouts.get(chosen("layout")));
  }

  function changed(event) {
    const name = event.target.name;
    if (name === "layout") showLayout();
    if (name === "surfaces" || name.startsWith("tissue-")) showSurfaces();
    if (name === "labels" || name === "maps" || name.startsWith("tissue-") || name.startsWith("map-")) showOverlays();
    nv.drawScene();
    nv.createOnLocationChange();
  }

  /* Where the crosshair is, in words. */
  function side(mm, plus, minus) {
    return `${Math.abs(mm).toFixed(1)} ${mm < 0 ? minus : plus}`;
  }

  function valueAt(made, mm) {
    return Math.round(made.getValue(...made.mm2vox(mm)));
  }

  nv.onLocationChange = ({ mm }) => {
    if (!labels) return;
    const words = [];
    const tissue = scene.tissues[valueAt(labels, mm) - 1];
    if (tissue) words.push(tissue.name);
    scene.maps.forEach((map, n) => {
      const value = checked(`map-${n}`) ? valueAt(maps[n], mm) : 0;
      const number = map.low + ((value - 1) / 254) * (map.high - map.low);
      if (value) words.push(`${map.title.toLowerCase()} ${number.toFixed(2)}${map.unit && ` ${map.unit}`}`);
    });
    const where = `${side(mm[0], "R", "L")}, ${side(mm[1], "A", "P")}, ${side(mm[2], "S", "I")} mm`;
    place.textContent = words.length ? `${where}: ${words.join(", ")}` : where;
  };

  /* Keys on the canvas: along the screen in the chosen plane, and through its slices. x is Right, y Anterior, z Superior. */
  const steps = {
    ArrowLeft: [[1, 0, 0], [1, 0, 0], [0, 1, 0]],
    ArrowRight: [[-1, 0, 0], [-1, 0, 0], [0, -1, 0]],
    ArrowUp: [[0, 1, 0], [0, 0, 1], [0, 0, 1]],
    ArrowDown: [[0, -1, 0], [0, 0, -1], [0, 0, -1]],
    PageUp: [[0, 0, 1], [0, 1, 0], [1, 0, 0]],
    PageDown: [[0, 0, -1], [0, -1, 0], [-1, 0, 0]],
  };
  const turns = { ArrowLeft: [-5, 0], ArrowRight: [5, 0], ArrowUp: [0, 5], ArrowDown: [0, -5] };

  canvas.addEventListener("keydown", (event) => {
    const layout = layouts.get(chosen("layout"));
    if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in steps)) return;
    event.preventDefault();
    if (layout === SLICE_TYPE.RENDER) {
      const [azimuth, elevation] = turns[event.key] || [0, 0];
      nv.setRenderAzimuthElevation(nv.scene.renderAzimuth + azimuth, nv.scene.renderElevation + elevation);
    } else {
      const plane = layout === SLICE_TYPE.MULTIPLANAR ? SLICE_TYPE.CORONAL : layout;
      nv.moveCrosshairInVox(...steps[event.key][plane].map((step) => step * (event.shiftKey ? 10 : 1)));
    }
  });

  try {
    form.hidden = false;
    await nv.attachToCanvas(canvas, true);
    await loadVolumes();
    await loadSurfaces();
    form.reset(); /* browsers remember switches over a reload */
    showFirst();
    form.addEventListener("input", changed);
    form.addEventListener("submit", (event) => event.preventDefault());
    message.hidden = true;
    const pictures = document.querySelector("#pictures details");
    if (pictures) pictures.open = false;
    window.viewer = nv; /* for the console */
    state.viewer = "ready";
  } catch (error) {
    fail(String(error));
  }
})();

/* On paper nothing can be unfolded. */
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
});
